"""The stand-in in integers: exactly what multiplying bytes gives, in the kernels that are made for it."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_integers import in_integers
from emadeploy.calibrate.half_rounding import rounded
from emadeploy.calibrate.insert import Types, insert
from emadeploy.calibrate.placement import place_for_tensorrt
from emadeploy.runtime.machine import sums_bytes

RNG = np.random.default_rng(11)
IMAGE = RNG.normal(0, 0.7, (1, 3, 64, 96)).astype(np.float32)
#: Scales are powers of two, and so every number on the way is exact in float32.
STEP, WEIGHT_STEP = 2.0**-6, 2.0**-7


def weights(out: int, given: int) -> np.ndarray:
    integers = RNG.integers(-127, 128, (out, given, 1, 1))
    integers[:, 0] = 127  # the largest of each channel makes its scale
    return (integers * WEIGHT_STEP).astype(np.float32)


CONSTANTS = {
    "w1": weights(8, 3),
    "b1": (RNG.integers(-4000, 4000, 8) * STEP * WEIGHT_STEP).astype(np.float32),
    "w2": weights(4, 8),
    "w3": weights(4, 8),
}
NODES = [
    ("Conv", "backbone.0/Conv", ["image", "w1", "b1"], ["a"], {}),
    ("Relu", "backbone.0/Relu", ["a"], ["b"], {}),
    ("Conv", "backbone.1/Conv", ["b", "w2"], ["c"], {}),
    ("Conv", "backbone.2/Conv", ["b", "w3"], ["d"], {}),
    ("Transpose", "ctal/Transpose", ["d"], ["e"], {"perm": [0, 1, 3, 2]}),
    ("MatMul", "ctal/MatMul", ["c", "e"], ["answer"], {}),
]
OUTPUTS = {"answer": (1, 4, 64, 64)}
#: The largest magnitude of a tensor is 127 steps.
RANGES = {name: (-127 * step, 127 * step) for name, step in (("image", STEP), ("b", STEP), ("c", STEP), ("e", STEP))}
RANGES["d"] = RANGES["e"]


@pytest.fixture
def typed(build):
    model = build(NODES, CONSTANTS, OUTPUTS)
    return to_half(insert(model, place_for_tensorrt(model), RANGES, Types("int8", True)))


def session(model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL", path: str = "") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = path
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values / STEP), -128, 127).astype(np.int64)


def by_hand() -> np.ndarray:
    """Multiply bytes, add up in 64 bits."""
    integers = {
        name: np.rint(CONSTANTS[name][:, :, 0, 0] / WEIGHT_STEP).astype(np.int64) for name in ("w1", "w2", "w3")
    }
    bias = np.rint(CONSTANTS["b1"] / (STEP * WEIGHT_STEP)).astype(np.int64)[:, None, None]

    def product(name: str, given: np.ndarray, add: np.ndarray | int = 0) -> np.ndarray:
        return (np.einsum("oc,chw->ohw", integers[name], given) + add) * STEP * WEIGHT_STEP

    b = in_bytes(np.maximum(product("w1", in_bytes(IMAGE[0]), bias), 0))
    c = in_bytes(product("w2", b))
    # A Transpose stands between this one and its bytes: there it is a number, and so in float16.
    d = in_bytes(product("w3", b).astype(np.float16))
    return (c @ d.transpose(0, 2, 1) * STEP * STEP)[None].astype(np.float32)


@pytest.mark.skipif(not sums_bytes(), reason="this CPU has no VNNI: its sums of bytes overflow")
def test_it_is_what_multiplying_bytes_gives(typed):
    wanted = by_hand()
    assert np.abs(wanted).max() > 1
    model = in_integers(rounded(typed))
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        [found] = session(model, level).run(None, {"image": IMAGE})
        # The answer itself is float16, rounded once.
        np.testing.assert_array_equal(found, wanted.astype(np.float16).astype(np.float32))


def test_it_runs_in_the_kernels_for_integers(typed, tmp_path):
    path = str(tmp_path / "optimised.onnx")
    session(in_integers(rounded(typed)), path=path)
    kernels = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kernels["QLinearConv"] == 2
    assert kernels["MatMulIntegerToFloat"] == 1
    assert (kernels["Conv"], kernels["FusedConv"] + kernels["MatMul"]) == (1, 0)  # the one in front of the Transpose
    session(rounded(typed), path=path)
    assert "QLinearConv" not in {node.op_type for node in onnx.load(path).graph.node}


def test_what_a_product_reads_second_stays_signed(typed):
    model = in_integers(rounded(typed))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    maker = {name: node for node in model.graph.node for name in node.output}
    [product] = [node for node in model.graph.node if node.op_type == "MatMul"]
    read = [types[maker[name].input[0]] for name in product.input]
    assert read == [onnx.TensorProto.UINT8, onnx.TensorProto.INT8]
    onnx.checker.check_model(model, full_check=True)


def test_a_sum_that_is_read_as_a_number_stays_one(build):
    more = [
        *NODES[:-1],
        ("Mul", "ctal/Mul", ["c", "c"], ["square"], {}),
        ("MatMul", "ctal/MatMul", ["c", "e"], ["answer"], {}),
    ]
    model = build(more, CONSTANTS, {**OUTPUTS, "square": (1, 4, 64, 96)})
    typed = to_half(insert(model, place_for_tensorrt(model), RANGES, Types("int8", True)))
    found = in_integers(rounded(typed))
    [product] = [node for node in found.graph.node if node.name == "backbone.1/Conv"]
    readers = [node for node in found.graph.node if product.output[0] in node.input]
    assert [node.op_type for node in readers] == ["Cast"]  # rounded to float16, as the typed graph says
    [kept], [cut] = (
        [node for node in found.graph.node if node.name == name] for name in ("ctal/Mul", "backbone.0/Conv")
    )
    assert kept.input[0] == kept.input[1] == "c"
    assert "QuantizeLinear" in {node.op_type for node in found.graph.node if cut.output[0] in node.input}


def test_it_leaves_what_it_is_given_alone(typed):
    given = rounded(typed)
    before = given.SerializeToString()
    in_integers(given)
    assert given.SerializeToString() == before
