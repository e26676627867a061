"""Times by layer: what the engines tell of a run, under the names and branches of the graph."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import CONVOLUTIONS, PRODUCT, SIZE, insert_qdq, tiny_graph

from emadeploy.build.graph import OnnxGraph
from emadeploy.build.onnxruntime import build as build_onnxruntime
from emadeploy.contract.branches import OTHER, branch_of
from emadeploy.contract.errors import ArtifactError, DeviceError, FrameError, SpecError
from emadeploy.contract.preprocess import preprocess
from emadeploy.runtime.profile import profile
from emadeploy.runtime.profiles.onnxruntime import layer_times

FRAME = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


def named_graph(folder: Path, **fields: Any) -> OnnxGraph:
    """Return the tiny graph with its tensors named after their nodes, as export names them."""
    graph = tiny_graph(folder, **fields)
    model = onnx.load(graph.path)
    outputs = {output.name for output in model.graph.output}
    names = {t: f"{node.name}_output" for node in model.graph.node for t in node.output if t not in outputs}
    for node in model.graph.node:
        node.input[:] = [names.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [names.get(tensor, tensor) for tensor in node.output]
    onnx.save(model, graph.path)
    return graph


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artifact of the tiny graph in float32, for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("profile")
    build_onnxruntime(named_graph(folder / "graph"), folder / "artifact", "onnxruntime-fp32")
    return folder / "artifact"


@pytest.fixture(scope="module")
def openvino_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artifact of the tiny graph in float32, for OpenVINO."""
    pytest.importorskip("openvino")
    from emadeploy.build.openvino import build

    folder = tmp_path_factory.mktemp("profile-openvino")
    build(tiny_graph(folder / "graph"), folder / "artifact", "openvino-fp32")
    return folder / "artifact"


@pytest.mark.parametrize("engine", ["artifact", "openvino_artifact"])
def test_the_layers_of_a_run_have_names_branches_and_times(engine: str, request: pytest.FixtureRequest) -> None:
    layers = profile(request.getfixturevalue(engine), FRAME, runs=3, threads=1)
    assert {"backbone", "ctal", "heads.depth"} <= {layer.branch for layer in layers}
    assert all(layer.milliseconds >= 0 and layer.kind and layer.name for layer in layers)
    assert sum(layer.milliseconds for layer in layers) > 0
    multiply = [layer for layer in layers if layer.kind in ("Conv", "Convolution", "FusedConv")]
    assert sorted(layer.branch for layer in multiply) == sorted(branch_of(name) for name in CONVOLUTIONS)
    assert {layer.precision for layer in multiply} == {"fp32"}
    assert any(layer.name == PRODUCT for layer in layers)


def test_int8_is_told(tmp_path: Path) -> None:
    graph = named_graph(tmp_path / "graph", calibration={"recipe": "by hand"})
    insert_qdq(graph, preprocess(FRAME, graph.model.input))
    build_onnxruntime(graph, tmp_path / "artifact", "onnxruntime-int8")
    layers = profile(tmp_path / "artifact", FRAME, runs=2, threads=1)
    assert {layer.precision for layer in layers if "Conv" in layer.kind} == {"int8"}


def event(name: str, kind: str, type_: str, *durations: int) -> list[dict[str, Any]]:
    args = {"op_name": kind, "input_type_shape": [{type_: [1]}], "output_type_shape": [{type_: [1]}]}
    return [{"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": args} for us in durations]


def test_a_profile_of_onnxruntime_is_read_without_its_first_run() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 99},
        *event("backbone.0/Relu_output_nchwc", "Conv", "float", 9000, 10, 30, 12),
        *event("depth_nchwc", "Upsample", "float", 9000, 4000, 4000, 4000),
        *event("ReorderOutput_token_6", "ReorderOutput", "float", 7),
        *event("ctal/MatMul_quant", "QLinearMatMul", "uint8", 1, 5, 5),
    ]
    layers = layer_times(events, ["depth"])
    assert [(one.name, one.kind, one.branch, one.precision, one.milliseconds) for one in layers] == [
        ("backbone.0/Relu_output", "Conv", "backbone", "fp32", 0.012),
        ("depth", "Upsample", "heads.depth", "fp32", 4.0),
        ("ReorderOutput", "ReorderOutput", OTHER, "fp32", 0.007),  # it ran once: that is all there is
        ("ctal/MatMul_quant", "QLinearMatMul", "ctal", "int8", 0.005),
    ]


def test_nothing_is_left_on_the_disk(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    profile(artifact, FRAME, runs=1, threads=1)
    assert os.listdir(tmp_path) == []


def test_what_makes_no_sense_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="runs 0 is not positive"):
        profile(artifact, FRAME, runs=0)
    with pytest.raises(SpecError, match="threads 0 is not positive"):
        profile(artifact, FRAME, threads=0)
    with pytest.raises(DeviceError, match="device 'gpu'"):
        profile(artifact, FRAME, device="gpu")
    with pytest.raises(FrameError):
        profile(artifact, FRAME.astype(np.float32))
    with pytest.raises(ArtifactError, match="does not exist"):
        profile(tmp_path / "nowhere", FRAME)


def test_an_altered_artifact_is_refused(tmp_path: Path) -> None:
    build_onnxruntime(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "onnxruntime-fp32")
    with (tmp_path / "artifact" / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=r"model\.onnx has"):
        profile(tmp_path / "artifact", FRAME)
