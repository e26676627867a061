"""Compiling in a process of its own, by each version of TensorRT, as its recorded surface has it."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import CONVOLUTIONS, PRODUCT, tiny_graph
from tensorrt_fake import VERSIONS

from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt import build
from emadeploy.contract.errors import ArtifactError, BackendMissing, BuildError, DeviceError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.trt import compiling
from emadeploy.runtime.trt.compiling import Options, compiled, engine_key, is_compiled, memory_limits, timings_key
from emadeploy.runtime.trt.device import Device
from emadeploy.runtime.trt.library import Library
from emadeploy.runtime.trt.record import EngineRecord

ORIN = Device("NVIDIA Jetson Orin Nano", "8.7", "36.4.4", "12.6", 8 << 30)
Install = Callable[..., Library]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> OnnxGraph:
    return tiny_graph(tmp_path_factory.mktemp("graph"))


@pytest.fixture
def on_orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "here", lambda: ORIN)


def silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_compiles_an_artifact(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path, version: str
) -> None:
    library = everywhere(version)
    folder = tmp_path / "artifact"
    build(graph, folder, "trt-rtx-fp32" if library.name == "tensorrt_rtx" else "trt-fp32")
    steps: list[Any] = []
    with compiled(folder, Options(), lambda *step: steps.append(step)) as engine:
        assert {node for layer in engine.layers if layer.compute for node in layer.nodes} == {
            *CONVOLUTIONS, PRODUCT, "ctal/MatMul_gram"
        }  # fmt: skip
        assert {layer.precision for layer in engine.layers} == {"fp32"}
        engine.record.write(folder, engine.made)
    assert [step for step in steps if not 0 <= step[1] <= step[2]] == []
    assert bool(steps) == library.reports_progress
    record = EngineRecord.read(folder)
    assert record == engine.record
    assert (record.key.version, record.key.gpu) == (library.version_text, ORIN.name)
    record.check(folder, Manifest.read(folder), ORIN, library)
    assert library.tensors(library.deserialize(record.plan_bytes(folder)))[0].name == "image"


@pytest.mark.parametrize("version", VERSIONS)
def test_8_6_misreads_what_is_newer_than_opset_17_and_the_others_do_not(
    everywhere: Install, on_orin: None, tmp_path: Path, version: str
) -> None:
    library = everywhere(version)
    folder = tmp_path / "artifact"
    graph = tiny_graph(tmp_path / "graph", opset=19)
    build(graph, folder, "trt-rtx-fp32" if library.name == "tensorrt_rtx" else "trt-fp32")
    if library.version[0] >= 10 or library.name == "tensorrt_rtx":
        with compiled(folder, Options(), silent) as engine:
            assert engine.made.is_file()
        return
    with (
        pytest.raises(
            BuildError, match=r"model\.onnx is in opset 19; TensorRT 8\.6\S* reads up to 17 .*JetPack 6\.1.*trt-fp16"
        ),
        compiled(folder, Options(), silent),
    ):
        pytest.fail("it is compiled")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]


def test_9_misreads_it_too(everywhere: Install, on_orin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tiny_graph(tmp_path / "graph", opset=19), tmp_path / "artifact", "trt-fp32")
    monkeypatch.setattr(everywhere("tensorrt-10.3"), "version", (9, 3, 0))
    with pytest.raises(BuildError, match="in opset 19"), compiled(tmp_path / "artifact", Options(), silent):
        pytest.fail("it is compiled")


def test_what_the_block_does_not_take_is_removed(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path
) -> None:
    everywhere("tensorrt-10.3")
    build(graph, tmp_path / "artifact", "trt-fp32")
    with compiled(tmp_path / "artifact", Options(), silent) as engine:
        assert engine.made.stat().st_size == engine.record.bytes
    assert sorted(os.listdir(tmp_path / "artifact")) == ["manifest.json", "model.onnx"]


def test_what_a_killed_build_left_is_removed_and_what_another_makes_is_not(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path
) -> None:
    everywhere("tensorrt-10.3")
    folder = tmp_path / "artifact"
    build(graph, folder, "trt-fp32")
    gone, alive = folder / f".engine-{2**22 + 1}.partial", folder / f".engine-{os.getppid()}.partial"
    for path in (gone, alive):
        path.write_bytes(b"half a plan")
    with compiled(folder, Options(), silent):
        assert (gone.exists(), alive.exists()) == (False, True)


def test_timings_are_kept_for_the_next_build(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = everywhere("tensorrt-10.3")
    build(graph, tmp_path / "artifact", "trt-fp32")
    with compiled(tmp_path / "artifact", Options(), silent):
        pass
    (kept,) = (tmp_path / "cache" / "tensorrt-timings").iterdir()
    key, device = engine_key(Manifest.read(tmp_path / "artifact"), library, Options())
    assert kept.stem == timings_key(key, device)
    kept.write_bytes(b"damaged")
    with compiled(tmp_path / "artifact", Options(), silent):
        pass
    assert kept.read_bytes() != b"damaged"
    others = [Device(**{**vars(ORIN), field: "other"}) for field in ("name", "compute_capability", "cuda")]
    keys = {timings_key(key, device) for device in (ORIN, *others)}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("world", "error", "message"),
    [
        ({"refuses": ("MatMul",)}, BuildError, r"does not take node 'ctal/MatMul_gram' \(MatMul\)"),
        ({"fails": "Error Code 2: OutOfMemory"}, BuildError, r"OutOfMemory\. Memory ran out\. Lower --workspace"),
        ({"gpu": False}, DeviceError, "cannot load the engine"),
    ],
)
def test_what_goes_wrong_in_the_process_is_told(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path, world: Any, error: Any, message: str
) -> None:
    everywhere("tensorrt-10.13", **world)
    build(graph, tmp_path / "artifact", "trt-fp32")
    with pytest.raises(error, match=message), compiled(tmp_path / "artifact", Options(), silent):
        pass
    assert sorted(os.listdir(tmp_path / "artifact")) == ["manifest.json", "model.onnx"]


def test_an_artifact_for_another_engine_needs_no_compiling(make_artifact: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=r"is for onnxruntime .* and needs no compiling"):
        compiled(make_artifact(), Options(), silent).__enter__()


def test_a_damaged_graph_is_not_compiled(everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path) -> None:
    everywhere("tensorrt-10.3")
    build(graph, tmp_path / "artifact", "trt-fp32")
    with (tmp_path / "artifact" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="truncated or altered"):
        compiled(tmp_path / "artifact", Options(), silent).__enter__()


def test_a_folder_that_cannot_be_written_is_named_before_minutes_have_passed(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    build(graph, tmp_path / "artifact", "trt-fp32")

    def refuse(self: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(compiling, "run_child", lambda *_: pytest.fail("it was started"))
    with pytest.raises(BuildError, match="cannot be written: Read-only file system"):
        compiled(tmp_path / "artifact", Options(), silent).__enter__()


@pytest.mark.parametrize("error", [DeviceError, BackendMissing])
def test_without_a_gpu_tensorrt_for_rtx_offers_to_build_ahead(
    everywhere: Install, graph: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def nowhere() -> Device:
        raise error("no GPU")

    monkeypatch.setattr(compiling, "here", nowhere)
    for version, target in (("tensorrt_rtx-1.7", "trt-rtx-fp32"), ("tensorrt-11.4", "trt-fp32")):
        library = everywhere(version)
        build(graph, tmp_path / target, target)
        offer = r"\. Without a GPU, build ahead of time: --compute-capability 8\.9" if library.builds_ahead else ""
        with pytest.raises(error, match=rf"^no GPU{offer}$"):
            engine_key(Manifest.read(tmp_path / target), library, Options())


def test_tensorrt_does_not_build_ahead(everywhere: Install, graph: OnnxGraph, tmp_path: Path) -> None:
    library = everywhere("tensorrt-11.4")
    manifest = build(graph, tmp_path / "artifact", "trt-fp32")
    with pytest.raises(
        DeviceError, match=r"compute capability 8\.9: TensorRT builds for the GPU of this machine alone"
    ):
        engine_key(manifest, library, Options(compute_capabilities=("8.9",)))


@pytest.mark.parametrize("text", ["89", "8.9a", "sm_89", ""])
def test_a_compute_capability_has_a_form(text: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"compute capability {text!r} is not written like 8.9")):
        Options(compute_capabilities=(text,))


def test_an_engine_that_is_there_is_found_unless_another_is_asked_for(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path
) -> None:
    library = everywhere("tensorrt-10.3")
    folder = tmp_path / "artifact"
    manifest = build(graph, folder, "trt-fp32")
    key, _ = engine_key(manifest, library, Options())
    assert is_compiled(folder, key, Options()) is None
    with compiled(folder, Options(workspace_mb=256), silent) as engine:
        engine.record.write(folder, engine.made)
    assert is_compiled(folder, key, Options()) == engine.record
    assert is_compiled(folder, key, Options(workspace_mb=256)) == engine.record
    assert is_compiled(folder, key, Options(workspace_mb=512)) is None
    assert is_compiled(folder, key, Options(optimization_level=5)) is None
    other, _ = engine_key(manifest, everywhere("tensorrt-10.13"), Options())
    assert is_compiled(folder, other, Options()) is None
    (folder / engine.record.plan).write_bytes(b"")
    assert is_compiled(folder, key, Options()) is None


@pytest.mark.parametrize(
    ("free_mb", "workspace", "tactics"), [(6000, 1500, 4500), (300, 128, 225), (60_000, 4096, 45_000)]
)
def test_on_a_jetson_limits_follow_the_memory_that_is_free(
    monkeypatch: pytest.MonkeyPatch, free_mb: int, workspace: int, tactics: int
) -> None:
    monkeypatch.setattr(compiling, "jetson_model", lambda: "NVIDIA Jetson Orin Nano")
    monkeypatch.setattr(compiling, "_available_bytes", lambda: free_mb << 20)
    assert memory_limits(Options()) == {"workspace": workspace << 20, "tactics": tactics << 20}
    assert memory_limits(Options(workspace_mb=64)) == {"workspace": 64 << 20, "tactics": tactics << 20}


def test_elsewhere_tensorrt_has_its_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "jetson_model", lambda: None)
    assert memory_limits(Options()) == {"workspace": None, "tactics": None}
    assert memory_limits(Options(workspace_mb=64)) == {"workspace": 64 << 20, "tactics": None}


def test_free_memory_is_read_from_the_system() -> None:
    free = compiling._available_bytes()
    assert free is None or 1 << 20 < free < 1 << 50


def test_the_record_is_json_that_people_can_read(
    everywhere: Install, on_orin: None, graph: OnnxGraph, tmp_path: Path
) -> None:
    everywhere("tensorrt-8.6")
    folder = tmp_path / "artifact"
    build(graph, folder, "trt-fp32")
    with compiled(folder, Options(optimization_level=2), silent) as engine:
        engine.record.write(folder, engine.made)
    told = json.loads((folder / "engine.json").read_text())
    assert told["settings"] == {"workspace_mb": None, "optimization_level": 2, "dla": None}
    assert told["key"]["compute_capabilities"] == ["8.7"]
