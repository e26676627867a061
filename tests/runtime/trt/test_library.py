"""The adapter over TensorRT's versions, against what each of them really has: a call that one lacks turns these red."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from tensorrt_fake import VERSIONS, fake, read_record

from emadeploy.contract.errors import BackendMissing, BuildError, DeviceError
from emadeploy.runtime.trt import library as library_module
from emadeploy.runtime.trt.layers import from_inspector, from_log
from emadeploy.runtime.trt.library import Library, load_library
from emadeploy.runtime.trt.values import BuildSettings, IoTensor

Install = Callable[..., Library]
IMAGE = IoTensor("image", (1, 3, 32, 64), "float32", is_input=True)
DEPTH = IoTensor("depth", (1, 1, 16, 32), "float32", is_input=False)


def build(library: Library, graph: Path, settings: BuildSettings | None = None, **more: Any) -> bytes:
    parsed = library.parse(graph.read_bytes(), str(graph))
    config = library.config(parsed, settings or BuildSettings(), more.get("timings", b""))
    library.monitor(config, more.get("report", lambda *_: None))
    return library.build_serialized_network(parsed, config)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_and_runs(installed: Install, tiny_onnx: Path, version: str) -> None:
    library = installed(version)
    steps: list[tuple[Any, ...]] = []
    settings = BuildSettings("int8", workspace=1 << 28, tactics=1 << 30, optimization_level=4)
    plan = build(library, tiny_onnx, settings, report=lambda *step: steps.append(step))
    assert bool(steps) == library.reports_progress == (version != "tensorrt-8.6")
    assert not steps or steps[-1] == ("Building engine", None, 2, 2)
    engine = library.deserialize(plan)
    assert library.tensors(engine) == (IMAGE, DEPTH)
    assert DEPTH.signature == ("depth", (1, 1, 16, 32), "float32")
    assert library.activation_bytes(engine) > 0
    found = from_inspector(library.layers(engine))
    assert [layer.nodes[0] for layer in found if layer.compute][:1] == ["backbone.conv1/Conv"]
    assert found == from_log(library.logger.layers)
    context = library.context(engine)
    image, depth = np.ones(IMAGE.shape, np.float32), np.zeros(DEPTH.shape, np.float32)
    for name, array in (("image", image), ("depth", depth)):
        assert context.set_tensor_address(name, array.ctypes.data_as(ctypes.c_void_p).value)
    assert context.execute_async_v3(0)
    assert depth.any()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_that_of_the_record(installed: Install, version: str) -> None:
    library = installed(version)
    assert (library.name, library.version_text) == (version.split("-")[0], read_record(version)["version"])
    assert ".".join(map(str, library.version)).startswith(version.split("-")[1])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("precision", "weak"), [("fp32", []), ("fp16", ["FP16"]), ("int8", ["FP16", "INT8"])])
def test_precision_is_the_graphs_and_8_6_is_told(
    installed: Install, tiny_onnx: Path, version: str, precision: str, weak: list[str]
) -> None:
    library = installed(version)
    build(library, tiny_onnx, BuildSettings(precision))
    (config,) = library.module.world.configs
    obeys = [*weak, "OBEY_PRECISION_CONSTRAINTS"] if weak else []
    assert config.flags_set == (obeys if version == "tensorrt-8.6" else [])
    assert library.strongly_typed == (version != "tensorrt-8.6")
    parsed = library.parse(tiny_onnx.read_bytes(), "")
    assert parsed.network._real.creation == (["STRONGLY_TYPED"] if library.strongly_typed else ["EXPLICIT_BATCH"])


def mixed() -> bytes:
    """Return image -> Cast -> Conv and Relu in float16 -> Cast -> Conv in float32 -> Q/DQ -> Conv that reads bytes."""
    node, half, single = onnx.helper.make_node, onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    nodes = [
        node("Cast", ["image"], ["a"], name="backbone/Cast", to=half),
        node("Conv", ["a", "w_half"], ["r"], name="backbone.half/Conv"),
        node("Relu", ["r"], ["b"], name="backbone.half/Relu"),
        node("Cast", ["b"], ["c"], name="backbone/Cast_1", to=single),
        node("Conv", ["c", "w"], ["d"], name="backbone.single/Conv"),
        node("QuantizeLinear", ["d", "scale", "zero"], ["e"], name="backbone/QuantizeLinear"),
        node("DequantizeLinear", ["e", "scale", "zero"], ["f"], name="backbone/DequantizeLinear"),
        node("Conv", ["f", "w"], ["depth"], name="heads.depth/Conv"),
    ]
    weight = np.ones((3, 3, 1, 1))
    arrays = {"w_half": weight.astype(np.float16), "w": weight.astype(np.float32)}
    arrays |= {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    given, answered = (onnx.helper.make_tensor_value_info(name, single, (1, 3, 4, 4)) for name in ("image", "depth"))
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "mixed", [given], [answered], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


@pytest.mark.parametrize("version", VERSIONS)
def test_8_6_is_told_what_the_graph_has_in_float32_and_the_products_in_float16(
    installed: Install, version: str
) -> None:
    library = installed(version)
    for precision in ("fp16", "int8"):
        library.config(library.parse(mixed(), ""), BuildSettings(precision))
        # Not what else is in float16, nor what reads bytes.
        products = {"backbone.half/Conv": ["HALF", "HALF"], "backbone.single/Conv": ["FLOAT", "FLOAT"]}
        held = products if version == "tensorrt-8.6" else {}
        assert library.module.world.told == held
        library.module.world.told.clear()
    library.config(library.parse(mixed(), ""), BuildSettings("fp32"))
    assert library.module.world.told == {}


def test_limits_and_level_arrive_and_none_leaves_its_own(installed: Install, tiny_onnx: Path) -> None:
    library = installed("tensorrt-10.3")
    build(library, tiny_onnx, BuildSettings(workspace=123, tactics=456, optimization_level=0))
    build(library, tiny_onnx)
    given, own = library.module.world.configs
    assert (given.limits, given.builder_optimization_level) == ({"WORKSPACE": 123, "TACTIC_DRAM": 456}, 0)
    assert (own.limits, own.builder_optimization_level) == ({}, 3)
    assert given.profiling_verbosity.name == own.profiling_verbosity.name == "DETAILED"


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_of_one_build_help_the_next_and_damaged_ones_do_not(
    installed: Install, tiny_onnx: Path, version: str
) -> None:
    library = installed(version)
    parsed = library.parse(tiny_onnx.read_bytes(), "")
    config = library.config(parsed, BuildSettings())
    timings = library.timings(config)
    assert bool(timings) == library.keeps_timings == (version != "tensorrt_rtx-1.7")
    if timings:
        assert library.config(parsed, BuildSettings(), timings)._real.timings._real.reused
        for useless in (timings[:-1], b"damaged", b""):
            assert not library.config(parsed, BuildSettings(), useless)._real.timings._real.reused


def plant_monitor(library: Library, graph: Path) -> None:
    library.module.Builder(library.logger).create_builder_config().progress_monitor = None


def plant_flag(library: Library, graph: Path) -> None:
    library.module.BuilderFlag.INT8  # noqa: B018


def plant_old_size(library: Library, graph: Path) -> None:
    library.deserialize(build(library, graph)).device_memory_size  # noqa: B018


def plant_new_size(library: Library, graph: Path) -> None:
    library.deserialize(build(library, graph)).device_memory_size_v2  # noqa: B018


def plant_capability(library: Library, graph: Path) -> None:
    library.module.Builder(library.logger).create_builder_config().num_compute_capabilities = 1


def plant_calibrator(library: Library, graph: Path) -> None:
    library.module.Builder(library.logger).create_builder_config().int8_calibrator  # noqa: B018


def plant_parameter(library: Library, graph: Path) -> None:
    parsed = library.parse(graph.read_bytes(), "")
    parsed.builder.build_serialized_network(parsed.network, library.config(parsed, BuildSettings()), "kernels")


Plant = Callable[[Library, Path], None]


@pytest.mark.parametrize(
    ("version", "planted"),
    [
        ("tensorrt-8.6", plant_monitor),
        ("tensorrt-8.6", plant_new_size),
        ("tensorrt-10.3", plant_capability),
        ("tensorrt-10.13", plant_parameter),
        ("tensorrt-11.4", plant_flag),
        ("tensorrt-11.4", plant_old_size),
        ("tensorrt-11.4", plant_calibrator),
        ("tensorrt_rtx-1.7", plant_flag),
    ],
)
def test_a_planted_call_that_a_version_lacks_is_an_error(
    installed: Install, tiny_onnx: Path, version: str, planted: Plant
) -> None:
    with pytest.raises((AttributeError, TypeError), match=r"incompatible|takes|INT8|has no attribute|cannot be set"):
        planted(installed(version), tiny_onnx)


@pytest.mark.parametrize(
    ("version", "planted"),
    [
        ("tensorrt-10.3", plant_monitor),
        ("tensorrt-10.3", plant_flag),
        ("tensorrt-8.6", plant_old_size),
        ("tensorrt-11.4", plant_new_size),
        ("tensorrt_rtx-1.7", plant_capability),
    ],
)
def test_and_where_a_version_has_it_it_is_none(
    installed: Install, tiny_onnx: Path, version: str, planted: Plant
) -> None:
    planted(installed(version), tiny_onnx)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_operator_that_the_parser_refuses_is_named(installed: Install, tiny_onnx: Path, version: str) -> None:
    library = installed(version, refuses=("MatMul",))
    node = "node number 6" if version == "tensorrt-8.6" else r"node 'ctal/MatMul_gram' \(MatMul\)"
    with pytest.raises(BuildError, match=rf"does not take {node}: Unsupported operator MatMul \(1 more\)"):
        library.parse(tiny_onnx.read_bytes(), "model.onnx")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("false", "unsupported node"),
        ("", "unsupported node"),
        ("Invalid Node:\n  {}\n[checkMacros.cpp::catchCudaError::250] Error Code 1", "Invalid Node: MatMul"),
    ],
)
def test_what_the_parser_says_becomes_a_line(installed: Install, tiny_onnx: Path, says: str, told: str) -> None:
    library = installed("tensorrt-10.3", refuses=("MatMul",))
    library.module.world.says = says
    with pytest.raises(BuildError, match=rf"\(MatMul\): {told} \(1 more\)\. Export again"):
        library.parse(tiny_onnx.read_bytes(), "model.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_extent_that_is_not_fixed_is_refused(installed: Install, tiny_onnx: Path, version: str) -> None:
    model = onnx.load(tiny_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BuildError, match=r"input 'image' has extents \(1, 3, -1, 64\).*with a fixed --size"):
        installed(version).parse(model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_build_that_fails_quotes_tensorrt(installed: Install, tiny_onnx: Path, version: str) -> None:
    library = installed(version, fails="Error Code 10:\n could not find any implementation")
    with pytest.raises(BuildError, match="cannot build the engine: Error Code 10: could not find any implementation"):
        build(library, tiny_onnx)


def test_a_plan_that_is_none_is_refused_with_its_reason(installed: Install) -> None:
    with pytest.raises(DeviceError, match=r"cannot load the engine: a plan with another magic\. Compile it again"):
        installed("tensorrt-10.3").deserialize(b"not a plan")


@pytest.mark.parametrize(("what", "make"), [("builder", "Builder"), ("runtime", "Runtime")])
def test_what_tensorrt_cannot_make_is_an_error_of_the_device(
    installed: Install, monkeypatch: pytest.MonkeyPatch, what: str, make: str
) -> None:
    library = installed("tensorrt-11.4")

    def without_driver(logger: Any) -> None:
        logger.log(logger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(library.module, make, without_driver)
    with pytest.raises(DeviceError, match=rf"cannot make its {what}: CUDA initialization failure with error: 35"):
        library.parse(b"", "") if what == "builder" else library.deserialize(b"")


def test_a_dla_core_is_used_where_there_is_one(installed: Install, tiny_onnx: Path) -> None:
    library = installed("tensorrt-10.3", dla_cores=2)
    build(library, tiny_onnx, BuildSettings("fp16", dla=1))
    (config,) = library.module.world.configs
    assert (config.default_device_type.name, config.DLA_core, config.flags_set) == ("DLA", 1, ["GPU_FALLBACK"])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_loaded_on_the_dla_core_that_it_was_built_with(
    installed: Install, tiny_onnx: Path, version: str
) -> None:
    library = installed(version, dla_cores=2)
    plan = build(library, tiny_onnx)
    library.deserialize(plan, 1)
    library.deserialize(plan)
    assert library.module.world.loaded_on == [1, -1]


@pytest.mark.parametrize(("cores", "why"), [(0, "has none here"), (2, "finds 2 here")])
def test_a_dla_core_that_is_not_there_is_refused(installed: Install, tiny_onnx: Path, cores: int, why: str) -> None:
    library = installed("tensorrt-11.4", dla_cores=cores)
    with pytest.raises(DeviceError, match=rf"DLA core 2: TensorRT 11\.4\.0\.106 {why}.*build without --dla"):
        build(library, tiny_onnx, BuildSettings(dla=2))


@pytest.mark.parametrize(
    ("version", "precision"), [("8.6", "fp32"), ("8.6", "int8"), ("10.3", "fp32"), ("10.3", "int8"), ("11.4", "fp32")]
)
def test_a_precision_that_a_dla_has_not_is_refused(
    installed: Install, tiny_onnx: Path, version: str, precision: str
) -> None:
    library = installed(f"tensorrt-{version}", dla_cores=2)
    with pytest.raises(DeviceError, match=rf"DLA core 0: .* float16 alone, and this is {precision}: .*trt-fp16"):
        build(library, tiny_onnx, BuildSettings(precision, dla=0))


def test_tensorrt_for_rtx_builds_ahead_of_time(installed: Install, tiny_onnx: Path) -> None:
    library = installed("tensorrt_rtx-1.7", gpu=False)
    build(library, tiny_onnx, BuildSettings(compute_capabilities=("8.9", "12.0")))
    (config,) = library.module.world.configs
    assert config.capabilities == ["SM89", "SM120"]
    with pytest.raises(
        DeviceError, match=r"compute capability 8\.7: .* builds for 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"
    ):
        build(library, tiny_onnx, BuildSettings(compute_capabilities=("8.7",)))


def test_others_do_not_build_ahead(installed: Install, tiny_onnx: Path) -> None:
    with pytest.raises(DeviceError, match="TensorRT builds for the GPU of this machine alone"):
        build(installed("tensorrt-10.13"), tiny_onnx, BuildSettings(compute_capabilities=("8.9",)))


def test_the_library_is_loaded_once(installed: Install) -> None:
    assert installed("tensorrt-10.3") is load_library("tensorrt")


@pytest.mark.parametrize(
    ("engine", "jetson", "line"),
    [
        ("tensorrt", None, r"pip install 'emadeploy\[tensorrt\]'"),
        ("tensorrt", "NVIDIA Jetson Orin Nano", "sudo apt install python3-libnvinfer.*--system-site-packages"),
        ("tensorrt_rtx", None, r"pip install 'emadeploy\[tensorrt-rtx\]'"),
        ("tensorrt_rtx", "NVIDIA Jetson Orin Nano", r"pip install 'emadeploy\[tensorrt-rtx\]'"),
    ],
)
def test_a_missing_library_comes_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, jetson: str | None, line: str
) -> None:
    monkeypatch.setattr(library_module, "jetson_model", lambda: jetson)
    load_library.cache_clear()

    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(library_module.importlib, "import_module", absent)
    with pytest.raises(BackendMissing, match=rf"engine '{engine}' needs .*, which is not installed: .*{line}"):
        load_library(engine)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("libnvinfer.so.10: cannot open shared object file"), "import fails: libnvinfer.so.10"),
        (ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs"), "without tensorrt_libs"),
    ],
)
def test_a_broken_library_says_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, message: str
) -> None:
    def broken(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(library_module.importlib, "import_module", broken)
    load_library.cache_clear()
    with pytest.raises(BackendMissing, match=f"TensorRT is installed.*{message}"):
        load_library("tensorrt")


def test_a_version_before_8_6_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake("tensorrt-8.6")
    old.__version__ = "8.5.2.2"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    load_library.cache_clear()
    with pytest.raises(BackendMissing, match=r"needs TensorRT 8\.6 or newer; 8\.5\.2\.2 is installed"):
        load_library("tensorrt")
