"""TensorRT for RTX, the real one, parses and builds every network of the zoo, ahead of time and so without a GPU.

Backbones are shortened and images small: the nodes are those of the full networks, and there are fewer of them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for x86-64 alone: pip install tensorrt-rtx")
pytest.importorskip("torch")
from networks import CONVOLUTIONS, PRODUCT, tiny_graph
from shortened import SIZE, shortened, structured

from emadeploy import zoo
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt import build
from emadeploy.build.tensorrt_engine import compile_artifact
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half_choice import Choice
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.calibrate.tensorrt import quantize, typed
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.spec import InputSpec
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.runtime.trt.compiling import Options, compiled

AHEAD = Options(compute_capabilities=("8.9",))
PRECISIONS = ("fp32", "fp16", "int8")
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
#: Network and tasks -> the entry of the zoo that has them; its backbone is HRNet.
ZOO = {
    (spec.network, spec.task_names): name
    for name, spec in ((name, zoo.load_spec(name)) for name in reversed(zoo.names()))
    if not spec.backbone.startswith("timm:")
}
_BASIS = (("emanet", ("semseg", "depth", "normals")), ("m_emanet", ("semseg", "depth")))
FORMS = [(*entry, "exact") for entry in ZOO] + [(*entry, "basis:2") for entry in _BASIS]
NAMES = [f"{ZOO[network, tasks]}-{form}" for network, tasks, form in FORMS]

Graphs = Callable[..., OnnxGraph]


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ranges that lie in the user's cache would hide that they cannot be found any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMADEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def frames() -> CalibrationFrames:
    return CalibrationFrames(structured(16, SIZE), InputSpec(*SIZE), "structured:0")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, frames: CalibrationFrames) -> Graphs:
    """Return a function that exports a network, once per arguments."""
    done: dict[object, OnnxGraph] = {}

    def export(network: str, tasks: tuple[str, ...], form: str) -> OnnxGraph:
        key = (network, tasks, form)
        if key not in done:
            source = Source(shortened(network, tasks), "a test", {"model": "tiny", "untrained": True})
            folder: Path = tmp_path_factory.mktemp(network)
            wanted = Wanted(ctal=form if "emanet" in network else None, low_precision=True)
            done[key] = export_graph(source, wanted, folder, frames=frames, report=lambda _: None, compared=1)
        return done[key]

    return export


def in_precision(graph: OnnxGraph, precision: str, frames: CalibrationFrames, folder: Path) -> OnnxGraph:
    """Return ``graph`` as an export for ``precision`` has it, with no more in float32 than float16 cannot hold."""
    if precision == "int8":
        graph = quantize(graph, frames, load_recipe("trt-int8"), folder / "int8")
    return typed(graph, folder / "typed", None if precision == "fp32" else Choice({}, {}, {}, frames.facts()))


def silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("network", "tasks", "form"), FORMS, ids=NAMES)
def test_every_network_is_built_in_its_precision(
    exported: Graphs, frames: CalibrationFrames, tmp_path: Path, network: str, tasks: Any, form: str, precision: str
) -> None:
    graph = in_precision(exported(network, tasks, form), precision, frames, tmp_path)
    assert graph.opset == (19 if precision == "int8" else 17), "17 is what TensorRT 8.6 reads"
    build(graph, tmp_path / "artifact", f"trt-rtx-{precision}")
    built = compile_artifact(tmp_path / "artifact", AHEAD, silent)
    products = [node for node in onnx.load(graph.path).graph.node if node.op_type in _PRODUCTS]
    assert built.manifest.audit is not None
    # TensorRT joins some that read the same tensor, and leaves none out.
    assert list(built.manifest.audit["total"]["compute"]) == [precision]
    assert 0.9 * len(products) <= built.manifest.audit["total"]["compute"][precision] <= len(products)
    branches = {branch for branch in graph.branches if branch.startswith(("backbone", "heads"))}
    assert {branch: built.manifest.precision[branch] for branch in branches} == dict.fromkeys(branches, precision)
    assert built.record.plan_bytes(tmp_path / "artifact")


def test_the_zoo_is_all_there() -> None:
    hrnets = [name for name in zoo.names() if not zoo.load_spec(name).backbone.startswith("timm:")]
    assert {(zoo.load_spec(name).network, zoo.load_spec(name).task_names) for name in hrnets} == set(ZOO)
    assert {network for network, _ in ZOO} == {"emanet", "m_emanet", "stl", "hps"}
    assert set(_BASIS) <= set(ZOO)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Return an artifact of a tiny graph in float32."""
    build(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "trt-rtx-fp32")
    return tmp_path / "artifact"


def test_every_product_is_in_a_layer_that_multiplies(artifact: Path) -> None:
    with compiled(artifact, AHEAD, silent) as engine:
        found = {node for layer in engine.layers if layer.compute for node in layer.nodes}
        assert found >= {*CONVOLUTIONS, PRODUCT, "ctal/MatMul_gram"}
        assert engine.made.is_file()
    assert not engine.made.exists()


def int32_bias(model: onnx.ModelProto) -> str:
    """A bias that is dequantised from int32, as every quantizer writes it unless told not to."""
    made = helper.make_node("DequantizeLinear", ["bias32", "bias_scale"], ["bias"], name="planted/bias")
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones(16, np.int32), "bias32"),
            numpy_helper.from_array(np.array(0.1, np.float32), "bias_scale"),
        ]
    )
    model.graph.node[0].input.append("bias")
    model.graph.node.insert(0, made)
    return "planted/bias"


def unsupported(model: onnx.ModelProto) -> str:
    """An operator that ONNX has and TensorRT has not."""
    relu = model.graph.node[1]
    model.graph.node.insert(1, helper.make_node("Det", ["a"], ["determinant"], name="planted/Det"))
    model.graph.node.insert(2, helper.make_node("Mean", ["a", "flat_determinant"], ["joined"], name="planted/Mean"))
    model.graph.node.insert(
        2, helper.make_node("Unsqueeze", ["determinant", "axes"], ["flat_determinant"], name="planted/Unsqueeze")
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    relu.input[0] = "joined"
    return "planted/Det"


def dynamic(model: onnx.ModelProto) -> str:
    """A height that is known when it runs."""
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return "image"


PLANTED = (int32_bias, unsupported, dynamic)


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_fault_is_refused_by_our_rules(tmp_path: Path, plant: Callable[[onnx.ModelProto], str]) -> None:
    graph = tiny_graph(tmp_path / "graph")
    model = onnx.load(graph.path)
    node = plant(model)
    onnx.save(model, graph.path)
    with pytest.raises(BuildError, match=re.escape(f"node {node!r}")):
        build(graph, tmp_path / "artifact", "trt-rtx-fp32")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_fault_that_our_rules_let_pass_is_refused_by_the_parser(
    artifact: Path, plant: Callable[[onnx.ModelProto], str]
) -> None:
    model = onnx.load(artifact / "model.onnx")
    node = plant(model)
    onnx.save(model, artifact / "model.onnx")
    manifest = Manifest.read(artifact)
    replace(manifest, files={"model.onnx": FileRecord.of(artifact / "model.onnx")}).write(artifact)
    what = "input" if plant is dynamic else "node"
    with pytest.raises(BuildError, match=re.escape(f"{what} {node!r}")):
        compile_artifact(artifact, AHEAD, silent)
    assert sorted(path.name for path in artifact.iterdir()) == ["manifest.json", "model.onnx"]
