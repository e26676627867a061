"""From opset 18 to 17, which TensorRT 8.6 reads: the axes of reductions become attributes, and no answer changes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from emadeploy.calibrate.half_choice import Choice
from emadeploy.calibrate.lowered import lowered
from emadeploy.calibrate.tensorrt import typed

CONSTANTS = {
    "axes": np.array([1], np.int64),
    "sizes": np.array([1, 3, 32, 48], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "tiny": np.array(1e-6, np.float32),
}
NODES = [
    ("Resize", "n/Resize", ["image", "", "", "sizes"], ["r"], {"mode": "linear", "antialias": 0}),
    ("ReduceL2", "n/ReduceL2", ["r", "axes"], ["l"], {"keepdims": 1, "noop_with_empty_axes": 0}),
    ("Add", "n/Add", ["l", "tiny"], ["m"], {}),
    ("Div", "n/Div", ["r", "m"], ["d"], {}),
    ("Pad", "n/Pad", ["d", "pads", "", ""], ["p"], {}),
    ("ReduceMax", "n/ReduceMax", ["p", "axes"], ["q"], {"keepdims": 1}),
    ("ReduceSum", "n/ReduceSum", ["p", "axes"], ["s"], {"keepdims": 1}),
    ("Split", "n/Split", ["p"], ["a", "b"], {"axis": 3, "num_outputs": 2}),
]
OUTPUTS = {"q": (1, 1, 34, 50), "s": (1, 1, 34, 50), "a": (1, 3, 34, 25), "b": (1, 3, 34, 25)}


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)})


def opset(model: onnx.ModelProto) -> int:
    return model.opset_import[0].version


def axes_inputs(model: onnx.ModelProto) -> list[str]:
    """Return the reductions whose axes TensorRT 8.6 does not see; that of ReduceSum it does."""
    reductions = [node for node in model.graph.node if node.op_type.startswith("Reduce") and len(node.input) > 1]
    return [node.name for node in reductions if node.op_type != "ReduceSum"]


def test_it_says_the_same_in_opset_17(build):
    model = build(NODES, CONSTANTS, OUTPUTS)
    older = lowered(model)
    assert (opset(model), opset(older)) == (18, 17)
    assert axes_inputs(model) == ["n/ReduceL2", "n/ReduceMax"]
    assert axes_inputs(older) == []
    assert [node.name for node in older.graph.node] == [node.name for node in model.graph.node]
    onnx.checker.check_model(older, full_check=True)
    for answer, truth in zip(run(older), run(model), strict=True):
        np.testing.assert_array_equal(answer, truth)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (("Split", "n", ["image"], ["a", "b"], {"axis": 1, "num_outputs": 2}), (1, 1, 64, 96)),
        (("Pad", "n", ["image", "two", "", "axes"], ["b"], {}), (1, 5, 64, 96)),
        (("Resize", "n", ["image", "", "", "sizes"], ["b"], {"mode": "linear", "antialias": 1}), (1, 3, 32, 48)),
        (("ReduceMax", "n", ["image", "none"], ["b"], {"noop_with_empty_axes": 1}), (1, 3, 64, 96)),
        (("LpPool", "n", ["image"], ["b"], {"kernel_shape": [2, 2], "strides": [2, 2]}), (1, 3, 32, 48)),
    ],
    ids=["parts that are not even", "padding of some axes", "antialias", "nothing reduced", "an operator not known"],
)
def test_what_opset_17_has_no_words_for_stays_as_it_is(build, node, shape):
    constants = {**CONSTANTS, "two": np.array([1, 1], np.int64), "none": np.array([], np.int64)}
    model = build([node], constants, {"b": shape})
    assert lowered(model) is model


def test_another_opset_stays_as_it_is(build):
    model = build(NODES, CONSTANTS, OUTPUTS)
    model.opset_import[0].version = 19
    assert lowered(model) is model


def test_a_graph_inside_of_a_node_stays_as_it_is():
    value = helper.make_tensor_value_info
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [value("y", 1, (2,))])
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [value("x", 1, (2,)), value("c", 9, ())], [value("z", 1, (2,))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert lowered(model) is model


@pytest.mark.parametrize("half", [False, True])
def test_graphs_without_pairs_are_for_tensorrt_8_6_too(emanet, tmp_path, half):
    [*norms] = [node.name for node in onnx.load(emanet.path).graph.node if node.op_type == "ReduceL2"]
    graph = typed(emanet, tmp_path, Choice(dict.fromkeys(norms, "norm"), {}, {}, {}) if half else None)
    model = onnx.load(graph.path)
    assert norms
    assert graph.opset == opset(model) == 17
    assert axes_inputs(model) == []
