"""ONNX Runtime artifacts: complete, loadable, or not there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import CONVOLUTIONS, PRODUCT, SIZE, insert_qdq, tiny_graph
from onnx import TensorProto, helper

from emadeploy import runtime
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.onnxruntime import build, layers_of_profile
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


CALIBRATION = {"recipe": "by hand"}
IMAGE = np.random.default_rng(3).uniform(0, 1, (1, 3, *SIZE)).astype(np.float32)


def test_int8_runs_in_int8(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    insert_qdq(graph, IMAGE)
    manifest = build(graph, tmp_path / "out", "onnxruntime-int8")
    assert manifest.precision == {"backbone": "int8", "ctal": "int8", "heads.depth": "int8"}
    assert manifest.calibration == CALIBRATION
    assert manifest.audit is not None
    assert manifest.audit["total"]["compute"] == {"int8": 5}
    assert manifest.audit["branches"]["backbone"]["compute"] == {"int8": 2}
    assert runtime.load(tmp_path / "out").describe()["target"] == "onnxruntime-int8"


def test_float_that_nobody_exempted_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    left = (CONVOLUTIONS[0], CONVOLUTIONS[1])
    insert_qdq(graph, IMAGE, leave=left)
    with pytest.raises(BuildError, match=r"'backbone' was asked for in int8; 2 convolutions and products run in fp32"):
        build(graph, tmp_path / "out", "onnxruntime-int8")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]
    kept = replace(graph, calibration={**CALIBRATION, "kept": list(left)})
    assert build(kept, tmp_path / "out", "onnxruntime-int8").precision["backbone"] == "fp32"


def test_a_product_of_ctal_that_falls_to_float_is_an_error(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    insert_qdq(graph, IMAGE)
    model = onnx.load(graph.path)
    maker = {made: node for node in model.graph.node for made in node.output}
    product = next(node for node in model.graph.node if node.name == PRODUCT)
    # One side from bytes, and the other as it was before its pair.
    product.input[1] = maker[maker[product.input[1]].input[0]].input[0]
    onnx.save(model, graph.path)
    graph.write()
    with pytest.raises(
        BuildError, match=rf"branch 'ctal' was asked for in int8; 1 conv.* runs in fp32: {PRODUCT}\. Bo"
    ):
        build(graph, tmp_path / "out", "onnxruntime-int8")
    kept = replace(graph, calibration={**CALIBRATION, "kept": [PRODUCT]})
    assert build(kept, tmp_path / "out", "onnxruntime-int8").precision["ctal"] == "mixed"


def test_int8_of_a_graph_without_quantisation(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph")
    with pytest.raises(BuildError, match="int8 was asked for, and this graph is not quantised: calibrate it first"):
        build(graph, tmp_path / "out", "onnxruntime-int8")
    with pytest.raises(BuildError, match=r"was asked for in int8; 2 convolutions and products run in fp32"):
        build(replace(graph, calibration=CALIBRATION), tmp_path / "out", "onnxruntime-int8")


def test_the_kernels_of_a_profile() -> None:
    """Recorded from ONNX Runtime 1.32, shortened."""

    def ran(name: str, kernel: str, taken: str, answered: str, *durations: int) -> list[dict[str, object]]:
        args = {"op_name": kernel, "input_type_shape": [{taken: [1]}], "output_type_shape": [{answered: [1]}]}
        return [{"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": args} for us in durations]

    events = [
        {"cat": "Session", "name": "model_run", "dur": 99},
        {"cat": "Node", "name": "backbone.0/Conv_fence_before", "dur": 1, "args": {}},
        *ran("b_nchwc", "Conv", "float", "float", 500, 10, 14),
        *ran("backbone.1/Conv_token_3", "QLinearConv", "uint8", "uint8", 9, 20, 20),
        *ran("f_nchwc", "Conv", "float", "float", 9, 7, 7),
        *ran("ctal/MatMul/MatmulTransposeFusion/", "FusedMatMul", "float", "float", 9, 30, 30),
        *ran("ctal/MatMul_1/MatMulAddFusion", "Gemm", "float", "float", 9, 6, 6),
        *ran("ctal/MatMul_quant", "MatMulIntegerToFloat", "int8", "float", 9, 5, 5),
        *ran("ctal/Concat", "QLinearConcat", "float", "uint8", 9, 4, 4),
        *ran("x_QuantizeLinear", "QuantizeLinear", "float", "uint8", 9, 3, 3),
        *ran("ReorderOutput_token_6", "ReorderOutput", "float", "float", 9, 2, 2),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["image"], ["a"], name="backbone.0/Conv"),
        node("Relu", ["a"], ["b"], name="backbone.0/Relu"),
        node("Conv", ["b"], ["c"], name="backbone.1/Conv"),
        node("Conv", ["c"], ["d"], name="heads.depth.0/Conv"),
        node("Add", ["c", "d"], ["e"], name="heads.depth.0/Add"),
        node("Relu", ["e"], ["f"], name="heads.depth.0/Relu"),
    ]
    layers = layers_of_profile(events, nodes)
    assert [(layer.nodes, layer.branch, layer.precision, layer.microseconds, layer.compute) for layer in layers] == [
        (("backbone.0/Conv", "backbone.0/Relu"), "backbone", "fp32", 12, True),
        (("backbone.1/Conv",), "backbone", "int8", 20, True),
        (("heads.depth.0/Conv", "heads.depth.0/Add", "heads.depth.0/Relu"), "heads.depth", "fp32", 7, True),
        (("ctal/MatMul",), "ctal", "fp32", 30, True),
        (("ctal/MatMul_1",), "ctal", "fp32", 6, True),
        (("ctal/MatMul_quant",), "ctal", "int8", 5, True),
        (("ctal/Concat",), "ctal", "int8", 4, False),
        (("x_QuantizeLinear",), "other", "int8", 3, False),
        (("ReorderOutput",), "other", "fp32", 2, False),
    ]
