"""From float32 to strongly typed float16: types, Casts at the borders, scales, and what is refused."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_graph import SMALLEST, unfit
from emadeploy.calibrate.insert import Types, insert, tensors_of
from emadeploy.calibrate.placement import place_for_tensorrt
from emadeploy.contract.errors import CalibrationError

RNG = np.random.default_rng(2)
WEIGHTS = {
    "w1": RNG.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
    "w2": RNG.normal(0, 0.3, (8, 8, 1, 1)).astype(np.float32),
    "w3": RNG.normal(0, 0.3, (2, 8, 1, 1)).astype(np.float32),
    "scales": np.array([1, 1, 2, 2], np.float32),
}
NODES = [
    ("Conv", "backbone.0/Conv", ["image", "w1"], ["a"], {"pads": [1] * 4}),
    ("Relu", "backbone.0/Relu", ["a"], ["b"], {}),
    ("Conv", "backbone.1/Conv", ["b", "w2"], ["c"], {}),
    ("Transpose", "backbone.1/Transpose", ["c"], ["d"], {"perm": [0, 1, 3, 2]}),
    ("Transpose", "backbone.1/Transpose_1", ["d"], ["e"], {"perm": [0, 1, 3, 2]}),
    ("Conv", "heads.depth/Conv", ["e", "w3"], ["f"], {}),
    ("Resize", "outputs.depth/Resize", ["f", "", "scales"], ["depth"], {"mode": "linear"}),
]
MAP = (1, 8, 64, 96)
OUTPUTS = {"depth": (1, 2, 128, 192)}
RANGES = {"image": (-2.0, 2.0), "b": (0.0, 6.0), "e": (-9.0, 9.0)}


@pytest.fixture
def model(build):
    return build(NODES, WEIGHTS, OUTPUTS)


@pytest.fixture
def quantised(model):
    """Return a function that quantises the graph, some ranges replaced."""

    def make(weights=WEIGHTS, **ranges) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for tensor in copy.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        placement = place_for_tensorrt(copy)
        assert set(tensors_of(copy, placement)) == set(RANGES)
        return insert(copy, placement, {**RANGES, **ranges}, Types("int8", True))

    return make


def types(model: onnx.ModelProto) -> dict[str, str]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {name: TensorProto.DataType.Name(type_) for name, type_ in found.items()}


def nodes(model: onnx.ModelProto, *op_types: str) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node if node.op_type in op_types or not op_types}


def array(model: onnx.ModelProto, name: str) -> np.ndarray:
    [found] = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return numpy_helper.to_array(found)


def test_everything_is_float16_but_what_goes_in_and_comes_out(model):
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    assert (found["image"], found["depth"]) == ("FLOAT", "FLOAT")
    assert {found[name] for node in nodes(half, "Conv", "Relu").values() for name in (*node.input, *node.output)} == {
        "FLOAT16"
    }
    assert Counter(node.op_type for node in half.graph.node)["Cast"] == 2
    assert set(nodes(half, "Cast")) == {"backbone.0/Conv/Cast_half", "outputs.depth/Resize/Cast_float"}
    assert half.opset_import[0].version == 18, "only Q/DQ needs a newer one"


def test_the_scales_of_a_resize_stay_float32(model):
    half = to_half(model)
    resize = nodes(half)["outputs.depth/Resize"]
    assert types(half)[resize.input[2]] == "FLOAT"


def test_the_original_is_left_alone(model):
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before


def test_what_is_kept_is_float32_between_casts_and_moves_go_with_what_they_read(model):
    half = to_half(model, ["backbone.1/Conv"])
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    assert {found[name] for name in (*nodes(half)["backbone.1/Conv"].input, "c", "d", "e")} == {"FLOAT"}
    assert set(nodes(half, "Cast")) == {
        "backbone.0/Conv/Cast_half",
        "backbone.0/Relu/Cast_float",
        "backbone.1/Transpose_1/Cast_half",
        "outputs.depth/Resize/Cast_float",
    }


def test_a_tensor_is_cast_once_for_all_its_readers(build):
    made = [("Relu", "a/Relu", ["image"], ["x"], {})]
    made += [("Mul", f"b/Mul_{i}", ["x", "two"], [f"y{i}"], {}) for i in range(3)]
    made += [("Sum", "c/Sum", ["y0", "y1", "y2"], ["z"], {})]
    model = build(made, {"two": np.array(2, np.float32)}, {"z": (1, 3, 64, 96)})
    half = to_half(model, [name for _, name, *_ in made if name.startswith("b")])
    casts = Counter((node.input[0], node.attribute[0].i) for node in half.graph.node if node.op_type == "Cast")
    assert set(casts.values()) == {1}
    assert casts["x", TensorProto.FLOAT] == 1


def test_an_answer_that_is_read_inside_too(build):
    made = [("Relu", "a/Relu", ["image"], ["x"], {}), ("Sqrt", "b/Sqrt", ["x"], ["y"], {})]
    half = to_half(build(made, {}, {"x": (1, 3, 64, 96), "y": (1, 3, 64, 96)}))
    onnx.checker.check_model(half, full_check=True)
    assert (types(half)["x"], types(half)["y"]) == ("FLOAT", "FLOAT")
    assert types(half)[nodes(half)["b/Sqrt"].input[0]] == "FLOAT16"


def test_q_and_dq_have_scales_of_the_type_of_their_float_side(quantised):
    half = to_half(quantised())
    onnx.checker.check_model(half, full_check=True)
    assert half.opset_import[0].version == 19
    found = types(half)
    for node in nodes(half, "QuantizeLinear", "DequantizeLinear").values():
        side = node.input[0] if node.op_type == "QuantizeLinear" else node.output[0]
        assert found[node.input[1]] == found[side]
        assert found[node.input[2]] == "INT8"
    readers = {name: node for node in half.graph.node for name in node.input}
    for node in nodes(half, "DequantizeLinear").values():
        assert readers[node.output[0]].op_type == "Conv", "a Cast would part the pair from its product"
    # The image comes in float32, and its bytes are read as float16: one scale, in two types.
    pair = nodes(half)["backbone.0/image/QuantizeLinear"], nodes(half)["backbone.0/image/DequantizeLinear"]
    scales = [array(half, node.input[1]) for node in pair]
    assert [scale.dtype for scale in scales] == [np.float32, np.float16]
    assert scales[0] == scales[1]


def test_a_pair_with_readers_of_both_types_is_read_once_in_each(build):
    made = [
        ("Relu", "a/Relu", ["image"], ["x"], {}),
        ("Conv", "b/Conv", ["x", "w1"], ["y"], {}),
        ("Conv", "c/Conv", ["x", "w1"], ["z"], {}),
    ]
    model = build(made, {"w1": WEIGHTS["w1"]}, dict.fromkeys("yz", (1, 8, 62, 94)))
    pairs = insert(model, place_for_tensorrt(model), {"x": (0.0, 2.0)}, Types("int8", True))
    half = to_half(pairs, ["c/Conv"])
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    maker = {name: node for node in half.graph.node for name in node.output}
    for name, type_ in (("b/Conv", "FLOAT16"), ("c/Conv", "FLOAT")):
        reads = nodes(half)[name].input
        assert {found[read] for read in reads} == {type_}
        assert {maker[read].op_type for read in reads} == {"DequantizeLinear"}
    assert len(nodes(half, "QuantizeLinear")) == 1


def test_bytes_whose_scale_is_no_normal_float16_are_read_in_float32(quantised):
    model = quantised(b=(0.0, 1e-3))  # scale 7.9e-6
    assert set(unfit(model)) == {"backbone.1/Conv"}
    assert "have scales from 7.9e-06; float16's start at 6.1e-05" in unfit(model)["backbone.1/Conv"]
    with pytest.raises(CalibrationError, match=r"node 'backbone.1/Conv' cannot be in float16: its bytes .*keep it in"):
        to_half(model)
    half = to_half(model, unfit(model))
    found = types(half)
    for node in nodes(half, "QuantizeLinear", "DequantizeLinear").values():
        assert array(half, node.input[1]).min() >= (SMALLEST if found[node.input[1]] == "FLOAT16" else 7e-6)
    pair = nodes(half)["b/QuantizeLinear"]
    assert (found[pair.input[1]], array(half, pair.input[1])) == ("FLOAT", np.float32(1e-3 / 127))


def test_a_faint_channel_of_a_weight_gets_the_smallest_scale(quantised):
    weights = {**WEIGHTS, "w2": WEIGHTS["w2"] * np.where(np.arange(8) == 3, 1e-3, 1)[:, None, None, None].astype("f")}
    model = quantised(weights)
    half = to_half(model)
    read = nodes(half)["backbone.1/Conv"].input[1]
    [pair] = [node for node in half.graph.node if read in node.output]
    scale, integers = array(half, pair.input[1]).astype(np.float64), array(half, pair.input[0])
    assert scale[3] == SMALLEST
    off = np.abs(integers * scale[:, None, None, None] - weights["w2"]).max(axis=(1, 2, 3))
    assert off[3] <= SMALLEST / 2 + 1e-6
    assert 0 < np.abs(integers[3]).max() < 127


def test_a_layer_of_faint_channels_alone_stays_in_float32(quantised):
    weights = {**WEIGHTS, "w2": WEIGHTS["w2"] * np.float32(1e-3)}
    assert "have scales from" in unfit(quantised(weights))["backbone.1/Conv"]


@pytest.mark.parametrize(
    ("constant", "why"),
    [(1e-12, "loses 1e\\+02 % in float16"), (1e5, "reaches 1e\\+05, beyond 65504"), (-np.inf, "is not finite")],
)
def test_a_constant_that_float16_cannot_hold_is_refused_and_may_be_kept(build, constant, why):
    made = [("Add", "x/Add", ["image", "c"], ["y"], {})]
    model = build(made, {"c": np.array(constant, np.float32)}, {"y": (1, 3, 64, 96)})
    with pytest.raises(CalibrationError, match=f"node 'x/Add' cannot be in float16: its constant 'c' {why}"):
        to_half(model)
    kept = to_half(model, ["x/Add"])
    assert array(kept, "c") == np.float32(constant)


def test_a_constant_that_float16_rounds_as_any_other_passes(build):
    made = [("Add", "x/Add", ["image", "c"], ["y"], {})]
    half = to_half(build(made, {"c": np.array(0.1, np.float32)}, {"y": (1, 3, 64, 96)}))
    assert array(half, "c/half").dtype == np.float16


def test_constant_nodes_count_as_constants(build):
    model = build([("Add", "x/Add", ["image", "c"], ["y"], {})], {"c": np.ones(1, np.float32)}, {"y": (1, 3, 64, 96)})
    del model.graph.initializer[:]
    value = numpy_helper.from_array(np.array([1e-12], np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], name="x/Constant", value=value))
    assert set(unfit(model)) == {"x/Add"}


def test_a_node_to_keep_that_is_not_there_is_refused(model):
    with pytest.raises(CalibrationError, match=r"cannot keep 'backbone.7/Conv' in float32: no node of the graph"):
        to_half(model, ["backbone.7/Conv"])


def test_a_graph_that_is_typed_already_is_refused(model):
    with pytest.raises(CalibrationError, match="has float16 tensors already; give the one in float32"):
        to_half(to_half(model))


def test_a_computed_scale_is_refused(quantised):
    model = quantised()
    pair = nodes(model)["b/QuantizeLinear"]
    model.graph.node.insert(0, helper.make_node("Abs", [pair.input[1]], ["computed"], name="x/Abs"))
    pair.input[1] = "computed"
    with pytest.raises(CalibrationError, match="node 'b/QuantizeLinear': its scale is computed; expected a constant"):
        to_half(model)


def test_subgraphs_are_refused(build):
    model = build([("Relu", "x/Relu", ["image"], ["y"], {})], {}, {"y": (1, 3, 64, 96)})
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], [], name="x/If", then_branch=body, else_branch=body))
    with pytest.raises(CalibrationError, match=r"subgraphs \(If, Loop, Scan\)"):
        to_half(model)


def test_types_that_do_not_fit_are_refused(model):
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(numpy_helper.from_array(WEIGHTS["w2"].astype(np.float64), "w2"))
    with pytest.raises(CalibrationError, match="do not fit together"):
        to_half(model)


def test_an_older_graph_whose_operators_may_mean_something_else_in_the_newer_opset_is_refused(quantised):
    model = quantised()
    model.opset_import[0].version = 17
    model.graph.node.append(helper.make_node("ReduceMax", ["b"], ["most"], name="x/ReduceMax", axes=[1]))
    with pytest.raises(CalibrationError, match="ReduceMax of opset 17 may mean something else in 19: export again"):
        to_half(model)
