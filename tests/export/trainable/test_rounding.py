"""Rounding for training: what ONNX Runtime's Q/DQ gives, to the bit, and the gradients that pass through it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from emadeploy.calibrate.insert import Types, insert
from emadeploy.calibrate.placement import place_for_onnxruntime
from emadeploy.export.trainable.rounding import least_scale, rounded, rounded_bias, rounded_weight

BYTES = {"uint8": (0, 255), "int8": (-128, 127)}


def by_engine(values: np.ndarray, scale: float, zero: int, dtype: str) -> np.ndarray:
    """Return ``values`` behind a QuantizeLinear and a DequantizeLinear that ONNX Runtime runs as they stand."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["byte"]),
        helper.make_node("DequantizeLinear", ["byte", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(scale), "scale"),
        numpy_helper.from_array(np.array(zero, dtype), "zero"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    [answer] = session(model).run(None, {"x": values})
    return answer


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 128), ("uint8", 37), ("int8", 0), ("int8", -5)])
@pytest.mark.parametrize("scale", [0.0173, 0.25, 3.1e-5])
def test_values_are_those_of_the_engine_to_the_bit(dtype: str, zero: int, scale: float) -> None:
    rng = np.random.default_rng(zero + 200)
    # Far beyond both ends too, and exactly between two steps, where rounding goes to the even one.
    values = np.concatenate([rng.normal(0, 120 * scale, 20_000), (np.arange(-300, 300) + 0.5) * np.float32(scale)])
    values = values.astype(np.float32)
    found = rounded(torch.from_numpy(values), torch.tensor(scale), zero, *BYTES[dtype])
    np.testing.assert_array_equal(found.numpy(), by_engine(values, scale, zero, dtype))


def test_the_gradient_passes_where_nothing_is_clipped() -> None:
    values = torch.tensor([-1.0, -0.3, 0.0, 0.61, 12.6, 12.8, 40.0], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    (rounded(values, scale, 0, 0, 127) * weights).sum().backward()
    assert values.grad is not None
    assert scale.grad is not None
    assert values.grad.tolist() == [0, 0, 3, 4, 5, 0, 0]
    # Inside, the error of rounding in steps (0.61 is 6.1 steps, 12.6 is 126); outside, the step that is left.
    expected = 4 * (6 - 6.1) + 5 * (126 - 126) + 6 * 127 + 7 * 127
    assert scale.grad.item() == pytest.approx(expected, abs=1e-3)


def test_the_gradient_of_the_scale_is_that_of_clipping() -> None:
    # All values are cut off: what comes out is 127 scales, a smooth function, so that a difference tells its slope.
    values = torch.tensor([50.0, 60.0, -70.0])

    def answer(scale: float) -> torch.Tensor:
        return rounded(values, torch.tensor(scale), 0, -127, 127).square().sum()

    scale = torch.tensor(0.1, requires_grad=True)
    rounded(values, scale, 0, -127, 127).square().sum().backward()
    assert scale.grad is not None
    slope = (answer(0.101) - answer(0.099)) / 0.002
    assert scale.grad.item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("largest", [127, 64])
def test_weights_and_biases_are_those_that_calibration_inserts(per_channel: bool, largest: int) -> None:
    rng = np.random.default_rng(11)
    weight = rng.normal(0, [[[[0.2]]], [[[3e-5]]], [[[1.0]]]], (3, 2, 3, 3)).astype(np.float32)
    bias = np.array([0.5, -9.0, 0.0], np.float32)  # the second channel's scale must grow for its bias
    inside = convolution(weight, bias)
    types = Types("uint8", False, largest, per_channel, bias=True)
    placement = place_for_onnxruntime(inside)
    made = insert(inside, placement, {"image": (-1.0, 1.0), "middle": (0.0, 2.0)}, types)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    reads = torch.tensor(float(arrays["first/image/scale"]))
    least = least_scale(torch.from_numpy(bias), reads, per_channel=per_channel)
    found, scales = rounded_weight(torch.from_numpy(weight), largest, per_channel=per_channel, least=least)
    np.testing.assert_array_equal(scales.numpy(), arrays["w/scale"])
    axes = (-1, 1, 1, 1) if per_channel else ()
    np.testing.assert_array_equal(found.numpy(), arrays["w/int8"] * arrays["w/scale"].reshape(axes))
    sums = rounded_bias(torch.from_numpy(bias), scales, reads)
    np.testing.assert_array_equal(sums.numpy(), arrays["b/int32"].astype(np.float32) * arrays["b/scale"])


def test_the_gradients_of_weights_and_biases_pass_whole() -> None:
    weight = torch.randn(2, 3, 1, 1, requires_grad=True)
    bias = torch.randn(2, requires_grad=True)
    found, scales = rounded_weight(weight, 127, per_channel=True, least=None)
    (found.sum() + 2 * rounded_bias(bias, scales, torch.tensor(0.1)).sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert torch.equal(bias.grad, torch.full_like(bias, 2))


def convolution(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """Return image -> convolution -> ReLU -> convolution in float (it answers) -> y."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["made"], pads=[1] * 4, name="first/Conv"),
        helper.make_node("Relu", ["made"], ["middle"], name="first/Relu"),
        helper.make_node("Conv", ["middle", "w2"], ["y"], name="second/Conv"),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 2, 4, 4))
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 4, 4))
    last = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w2")
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b"), last]
    graph = helper.make_graph(nodes, "convolution", [given], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
