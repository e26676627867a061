"""Q/DQ in graphs: scales against ONNX Runtime's quantizer, weights, biases, who reads what."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime.quantization.quant_utils import compute_scale_zp

from emadeploy.calibrate.insert import Types, insert, scale_of, tensors_of
from emadeploy.calibrate.placement import place_for_onnxruntime, place_for_tensorrt

PADS = {"pads": [1, 1, 1, 1]}
TENSORRT = Types("int8", True)
X86 = Types("uint8", False, bias=True)
RNG = np.random.default_rng(6)
IMAGE = RNG.uniform(0, 1, (1, 3, 64, 96)).astype(np.float32)


@given(st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32), st.sampled_from(["uint8", "int8"]))
def test_scales_with_zero_points_are_onnxruntimes(low, high, dtype):
    limits = np.iinfo(dtype)
    bounds = np.array(limits.min, dtype), np.array(limits.max, dtype)
    zero, scale = compute_scale_zp(np.float32(low), np.float32(high), *bounds, symmetric=False)
    if high - low < 1e-30:
        return  # theirs is 1 where ours is the least normal number
    found = scale_of((low, high), dtype, zero_centred=False)
    assert found.scale == pytest.approx(float(scale), rel=1e-6)
    assert abs(int(found.zero_point) - int(zero)) <= 1
    assert found.zero_point.dtype == dtype


@given(st.floats(2**-20, 1e4, width=32), st.sampled_from([127, 64]))
def test_symmetric_scales_are_onnxruntimes(high, largest):
    bounds = np.array(-largest, np.int8), np.array(largest, np.int8)
    zero, scale = compute_scale_zp(np.float32(-high), np.float32(high), *bounds, symmetric=True)
    found = scale_of((-high / 2, high), "int8", zero_centred=True, largest=largest)
    assert (int(found.zero_point), int(zero)) == (0, 0)
    assert found.scale == pytest.approx(float(scale), rel=1e-6)
    assert scale_of((-high, 0), "uint8", zero_centred=True).zero_point == 128


@given(st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32), st.booleans())
def test_zero_is_an_integer_and_the_range_is_covered(low, high, zero_centred):
    found = scale_of((low, high), "int8", zero_centred=zero_centred)
    assert found.scale > 0
    ends = (np.array([-127 if zero_centred else -128, 127]) - int(found.zero_point)) * np.float64(found.scale)
    slack = float(found.scale) * 0.51
    assert ends[0] - slack <= low
    assert high <= ends[1] + slack


def test_nothing_to_cover_has_the_scale_one():
    assert scale_of((0, 0), "int8", zero_centred=True).scale == 1
    assert scale_of((0, 0), "uint8", zero_centred=False).scale == 1


@pytest.fixture(scope="module")
def model(build):
    """Return conv1 -> relu -> conv2 + relu's -> relu -> conv3 -> conv4, with biases and uneven channels."""
    constants = {"quiet": np.zeros(3, np.float32)}
    for index in (1, 2, 3, 4):
        weight = RNG.normal(0, 0.3, (3, 3, 3, 3)) * np.array([0.01, 1, 4])[:, None, None, None]
        constants |= {f"conv{index}.weight": weight.astype(np.float32)}
        constants |= {f"conv{index}.bias": RNG.normal(0, 0.3, 3).astype(np.float32)}

    def conv(index, read, made):
        return ("Conv", f"conv{index}/Conv", [read, f"conv{index}.weight", f"conv{index}.bias"], [made], PADS)

    nodes = [
        conv(1, "image", "a"),
        ("Relu", "conv1/Relu", ["a"], ["x"], {}),
        conv(2, "x", "b"),
        ("Add", "block/Add", ["b", "x"], ["c"], {}),
        ("Relu", "block/Relu", ["c"], ["d"], {}),
        conv(3, "d", "e"),
        conv(4, "e", "out"),
    ]
    return build(nodes, constants, {"out": (1, 3, 64, 96)})


def run(model: onnx.ModelProto, tensors=("out",), *, optimised: bool = False) -> list[np.ndarray]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in set(tensors) - {"out"}:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(tensors), {"image": IMAGE})


@pytest.fixture(scope="module")
def ranges(model):
    names = ("a", "b", "c", "d", "e", "x")
    values = {**dict(zip(names, run(model, names), strict=True)), "image": IMAGE}
    return {name: (min(float(value.min()), 0), max(float(value.max()), 0)) for name, value in values.items()}


def nodes_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize(("place", "types"), [(place_for_tensorrt, TENSORRT), (place_for_onnxruntime, X86)])
def test_the_graph_answers_nearly_the_same_and_the_original_is_left_alone(model, ranges, place, types):
    before = model.SerializeToString()
    quantised = insert(model, place(model), ranges, types)
    assert model.SerializeToString() == before
    [wanted], [found] = run(model), run(quantised)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 1e-5 < error < 0.05


def test_tensorrt_gets_symmetric_int8_and_float_biases(model, ranges):
    quantised = insert(model, place_for_tensorrt(model), ranges, TENSORRT)
    nodes, constants = nodes_of(quantised), constants_of(quantised)
    pairs = [node for node in nodes.values() if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    for index in (1, 2, 3, 4):
        assert nodes[f"conv{index}/Conv"].input[2] == f"conv{index}.bias"
    assert nodes["block/Add"].input[0] == "b", "the branch of the convolution is left to fuse"
    assert nodes["block/Add"].input[1] == nodes["conv2/Conv"].input[0], "one pair serves all who read x"


def test_weights_have_a_scale_per_output_channel(model, ranges):
    quantised = insert(model, place_for_tensorrt(model), ranges, TENSORRT)
    node = nodes_of(quantised)["conv1.weight/DequantizeLinear"]
    constants = constants_of(quantised)
    weight = constants_of(model)["conv1.weight"]
    integers, scales = (constants[name] for name in node.input[:2])
    assert [a.i for a in node.attribute if a.name == "axis"] == [0]
    np.testing.assert_allclose(scales, np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    assert np.abs(integers).max(axis=(1, 2, 3)).tolist() == [127, 127, 127]
    assert (np.abs(integers * scales[:, None, None, None] - weight) <= scales[:, None, None, None] * 0.51).all()
    assert "conv1.weight" not in constants, "floats that nobody reads are gone"


@pytest.mark.parametrize(("types", "largest"), [(Types("uint8", False, 64), 64), (Types("uint8", False), 127)])
def test_reduced_weights_fit_seven_bits(model, ranges, types, largest):
    quantised = insert(model, place_for_onnxruntime(model), ranges, types)
    assert np.abs(constants_of(quantised)["conv2.weight/int8"].astype(int)).max() == largest


def test_one_scale_for_a_whole_weight_where_asked(model, ranges):
    quantised = insert(model, place_for_tensorrt(model), ranges, Types("int8", True, per_channel=False))
    assert constants_of(quantised)["conv1.weight/scale"].shape == ()
    assert np.linalg.norm(run(quantised)[0] - run(model)[0]) / np.linalg.norm(run(model)[0]) < 0.1


def test_onnxruntimes_biases_are_sums_in_int32(model, ranges):
    quantised = insert(model, place_for_onnxruntime(model), ranges, X86)
    constants, plain = constants_of(quantised), constants_of(model)
    scales = constants["conv2.weight/scale"] * constants["x/scale"]
    np.testing.assert_allclose(constants["conv2.bias/scale"], scales, rtol=1e-6)
    assert constants["conv2.bias/int32"].dtype == np.int32
    np.testing.assert_allclose(constants["conv2.bias/int32"] * scales, plain["conv2.bias"], atol=scales.max())


def test_a_bias_too_large_for_its_channel_widens_the_scale(model, ranges):
    altered = onnx.ModelProto()
    altered.CopyFrom(model)
    for tensor in altered.graph.initializer:
        if tensor.name == "conv2.weight":
            weight = numpy_helper.to_array(tensor) * np.array([1e-12, 1, 1], np.float32)[:, None, None, None]
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    quantised = constants_of(insert(altered, place_for_onnxruntime(altered), ranges, X86))
    found = quantised["conv2.bias/int32"] * quantised["conv2.bias/scale"].astype(np.float64)
    np.testing.assert_allclose(found, constants_of(model)["conv2.bias"], atol=quantised["conv2.bias/scale"].max())
    assert found[0] == pytest.approx(constants_of(model)["conv2.bias"][0], rel=1e-6)


def test_a_kept_layer_has_its_float_weight_and_reads_floats(model, ranges):
    kept = nodes_of(insert(model, place_for_tensorrt(model, ["conv3/Conv"]), ranges, TENSORRT))["conv3/Conv"]
    assert list(kept.input) == ["d", "conv3.weight", "conv3.bias"]


def test_what_shares_a_scale_has_the_wider_range(build):
    kernel = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)
    nodes = [
        ("Conv", "conv1/Conv", ["image", "kernel"], ["a"], PADS),
        ("Conv", "conv2/Conv", ["image", "kernel"], ["b"], PADS),
        ("Concat", "both/Concat", ["a", "b"], ["c"], {"axis": 1}),
        ("Conv", "conv3/Conv", ["c", "wide"], ["d"], PADS),
        ("Conv", "conv4/Conv", ["d", "kernel"], ["out"], PADS),
    ]
    wide = RNG.normal(size=(3, 6, 3, 3)).astype(np.float32)
    model = build(nodes, {"kernel": kernel, "wide": wide}, {"out": (1, 3, 64, 96)})
    placement = place_for_onnxruntime(model)
    ranges = {"image": (0, 1), "a": (-1, 2), "b": (-4, 1), "c": (-4, 2), "d": (-9, 9)}
    constants = constants_of(insert(model, placement, ranges, X86))
    scales = {name: (float(constants[f"{name}/scale"]), int(constants[f"{name}/zero"])) for name in "abcd"}
    assert scales["a"] == scales["b"] == scales["c"] == (pytest.approx(6 / 255), 170)
    assert scales["d"][0] == pytest.approx(18 / 255), "the control"


def test_pairs_on_inputs_are_named_by_the_layer_that_reads_them(model, ranges):
    names = nodes_of(insert(model, place_for_tensorrt(model), ranges, TENSORRT))
    assert "conv1/image/QuantizeLinear" in names
    assert len(names) == len(insert(model, place_for_tensorrt(model), ranges, TENSORRT).graph.node)


def test_the_second_factor_of_a_product_is_signed(build):
    nodes = [
        ("Transpose", "t/Transpose", ["image"], ["a"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", "p/MatMul", ["image", "a"], ["b"], {}),
        ("MatMul", "q/MatMul", ["b", "image"], ["out"], {}),
    ]
    model = build(nodes, {}, {"out": (1, 3, 64, 96)})
    placement = place_for_onnxruntime(model)
    assert tensors_of(model, placement) == ["a", "b", "image"]
    quantised = insert(model, placement, {"image": (0, 1), "a": (0, 1), "b": (0, 96)}, X86)
    nodes, constants = nodes_of(quantised), constants_of(quantised)
    maker = {made: node for node in nodes.values() for made in node.output}
    first, second = (maker[name] for name in nodes["p/MatMul"].input)
    assert constants[first.input[2]].dtype == np.uint8
    assert constants[second.input[2]] == np.zeros((), np.int8)
    # Every value is multiplied by itself, so that none may be off by more than its two roundings.
    [wanted], [found] = run(model), run(quantised)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.02
