"""ONNX Runtime artifacts: complete, loadable, or not there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from emadeploy import runtime
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.onnxruntime import build
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    """Return the record of a graph that answers the red channel as depth."""
    shape, answered = (1, 3, 32, 64), (1, 1, 32, 64)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Split", ["image"], ["depth", "g", "b"], axis=1, num_outputs=3, name="backbone/Split")],
            "red",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("depth", TensorProto.FLOAT, answered)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    folder = tmp_path / "graph"
    folder.mkdir()
    record = OnnxGraph(
        folder=folder,
        model=ModelSpec("red", "hps", (TaskSpec("depth"),), InputSpec(32, 64)),
        opset=18,
        ctal=None,
        rewrites=(),
        branches=("backbone",),
        inputs=(TensorSpec("image", shape, "float32", "BCHW"),),
        outputs=(TensorSpec("depth", answered, "float32", "BCHW"),),
        parity={"depth": {"raw_error": 0.0}},
        source={"model": "red", "untrained": True},
        versions={"torch": "2"},
    )
    onnx.save(model, record.path)
    record.write()
    return record


def test_the_artifact_runs_and_says_what_it_is(graph: OnnxGraph, tmp_path: Path) -> None:
    output = tmp_path / "red.onnxruntime-fp32"
    manifest = build(graph, output, "onnxruntime-fp32")
    assert Manifest.read(output) == manifest
    manifest.verify_files(output)
    assert manifest.precision == {"backbone": "fp32"}
    assert manifest.untrained
    assert manifest.parity == graph.parity
    assert {"torch", "onnxruntime"} <= manifest.versions.keys()
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, :, 0] = 51
    result = runtime.load(output)(frame)
    assert result.depth is not None
    np.testing.assert_allclose(result.depth, 0.2, rtol=1e-6)


def test_a_graph_that_does_not_load(graph: OnnxGraph, tmp_path: Path) -> None:
    graph.path.write_bytes(graph.path.read_bytes()[:60])
    with pytest.raises(BuildError, match=r"onnxruntime .* cannot load the graph"):
        build(graph, tmp_path / "out", "onnxruntime-fp32")
    assert not (tmp_path / "out").exists()


def test_a_graph_that_is_not_its_record(graph: OnnxGraph, tmp_path: Path) -> None:
    other = replace(graph, outputs=(TensorSpec("depth", (1, 1, 16, 32), "float32", "BCHW"),))
    with pytest.raises(BuildError, match="not those of its record"):
        build(other, tmp_path / "out", "onnxruntime-fp32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph"]
