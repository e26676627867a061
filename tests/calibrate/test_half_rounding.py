"""The stand-in of a typed graph: it rounds where the typed graph rounds, to the bit, and nowhere else."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from test_half import NODES, OUTPUTS, RANGES, WEIGHTS

from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_rounding import rounded
from emadeploy.calibrate.insert import Types, insert
from emadeploy.calibrate.placement import place_for_tensorrt

RNG = np.random.default_rng(6)
IMAGE = RNG.normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
#: Cancels all but a few bits of what it reads: a rounding that is left out shows.
DELICATE = [
    ("Mul", "a/Mul", ["image", "third"], ["x"], {}),
    ("Add", "a/Add", ["x", "many"], ["y"], {}),
    ("Relu", "a/Relu", ["y"], ["r"], {}),
    ("Sub", "a/Sub", ["r", "many"], ["z"], {}),
    ("Transpose", "a/Transpose", ["z"], ["t"], {"perm": [0, 1, 3, 2]}),
    ("Exp", "a/Exp", ["t"], ["e"], {}),
    ("Mul", "a/Mul_1", ["e", "t"], ["answer"], {}),
]
CONSTANTS = {"third": np.array(1 / 3, np.float32), "many": np.array(500, np.float32)}


def run(model: onnx.ModelProto, image: np.ndarray, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [given], [answer] = session.get_inputs(), session.get_outputs()
    return session.run([answer.name], {given.name: image})[0]


def node_by_node(typed: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """Run each node of a typed graph by itself, so that what stands between two of them has its own type."""
    types = {value.name: value.type.tensor_type.elem_type for value in (*typed.graph.value_info, *typed.graph.output)}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in typed.graph.initializer}
    values["image"] = image
    for node in typed.graph.node:
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape)
            for name in dict.fromkeys(filter(None, node.input))
        ]
        made = [helper.make_tensor_value_info(name, types[name], None) for name in node.output]
        model = helper.make_model(
            helper.make_graph([node], "one", given, made), opset_imports=typed.opset_import, ir_version=10
        )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {value.name: values[value.name] for value in given})
        values |= dict(zip(node.output, results, strict=True))
    return values[typed.graph.output[0].name]


@pytest.fixture
def delicate(build):
    return build(DELICATE, CONSTANTS, {"answer": (1, 3, 96, 64)})


@pytest.mark.parametrize("keep", [(), ("a/Sub",), ("a/Relu", "a/Exp")])
def test_it_rounds_as_the_typed_graph_does_to_the_bit(delicate, keep):
    typed = to_half(delicate, keep)
    wanted = node_by_node(typed, IMAGE)
    found = rounded(typed)
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        np.testing.assert_array_equal(run(found, IMAGE, level), wanted)
    assert np.abs(run(delicate, IMAGE) - wanted).max() > 0.1, "rounding must be seen"


def test_of_elementwise_nodes_it_is_what_numpy_makes_of_float16(delicate):
    x = (IMAGE.astype(np.float16) * np.float16(1 / 3) + np.float16(500)).clip(0) - np.float16(500)
    t = x.transpose(0, 1, 3, 2)
    # numpy's exp of float16 is that of float32, rounded.
    wanted = (np.exp(t.astype(np.float32)).astype(np.float16) * t).astype(np.float32)
    np.testing.assert_array_equal(run(rounded(to_half(delicate)), IMAGE), wanted)


@pytest.mark.parametrize("in_bytes", [False, True])
def test_convolutions_resizes_and_pairs_are_rounded_too(build, in_bytes):
    model = build(NODES, WEIGHTS, OUTPUTS)
    if in_bytes:
        model = insert(model, place_for_tensorrt(model), RANGES, Types("int8", True))
    typed = to_half(model)
    np.testing.assert_array_equal(run(rounded(typed), IMAGE), node_by_node(typed, IMAGE))


def test_it_is_float32_with_pairs_of_casts_alone(delicate):
    model = rounded(to_half(delicate))
    onnx.checker.check_model(model, full_check=True)
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    halves = [name for name, type_ in types.items() if type_ == TensorProto.FLOAT16]
    assert {readers[name] for name in halves} == {"Cast"}
    # The image, and five of seven nodes: a Relu cuts and a Transpose moves what is rounded already.
    assert len(halves) == 6
