"""Layers computed by hand: convolutions, products, resizing, rounding, and what is fused with what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.work import Layer, Work
from emadeploy.work.layers import work_of
from emadeploy.work.onnx_net import net_of

node = helper.make_node
FLOAT = TensorProto.FLOAT


def graph(
    nodes: Sequence[onnx.NodeProto],
    given: dict[str, Sequence[int]],
    answered: Sequence[str],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """Return a graph of float32 tensors whose extents ONNX infers."""
    made = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in answered],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred)
    return inferred


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def layers(model: onnx.ModelProto, uniform: str | None = None) -> tuple[Layer, ...]:
    return work_of(net_of(model), uniform=uniform).layers


def test_a_convolution_with_what_is_fused_behind_it() -> None:
    model = graph(
        [
            node("Conv", ["x", "w", "b"], ["a"], name="backbone.0.conv1/Conv", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Mul", ["a", "scale"], ["n"], name="backbone.0.norm/Mul"),
            node("Relu", ["n"], ["y"], name="backbone.0.conv1/Relu"),
        ],
        {"x": (1, 3, 8, 12)},
        ["y"],
        {"w": weight(16, 3, 3, 3), "b": weight(16), "scale": weight(1, 16, 1, 1)},
    )
    [layer] = layers(model)
    assert (layer.name, layer.kind, layer.branch) == ("backbone.0.conv1/Conv", "conv", "backbone")
    assert layer.macs == 16 * 4 * 6 * 3 * 3 * 3
    assert (layer.inner, layer.outer) == (3, 16)
    assert layer.reads == (4 * 3 * 8 * 12,)
    assert layer.writes == (4 * 16 * 4 * 6,)
    assert layer.weights == 4 * (16 * 27 + 16 + 16)
    assert layer.precision == "fp32"


def test_in_float16_maps_and_weights_are_half_and_what_users_give_and_get_stays() -> None:
    nodes = [node("Conv", ["x", "v"], ["h"], name="c0"), node("Conv", ["h", "w"], ["y"], name="c1")]
    model = graph(nodes, {"x": (1, 4, 2, 2)}, ["y"], {"v": weight(8, 4, 1, 1), "w": weight(2, 8, 1, 1)})
    first, second = layers(model, "fp16")
    assert (first.precision, first.reads, first.writes, first.weights) == ("fp16", (4 * 16,), (2 * 32,), 2 * 32)
    assert (second.reads, second.writes) == ((2 * 32,), (4 * 8,))


def test_a_depthwise_convolution_and_one_in_groups() -> None:
    nodes = [
        node("Conv", ["x", "d"], ["h"], name="each", group=8, pads=[1, 1, 1, 1]),
        node("Conv", ["h", "g"], ["y"], name="groups", group=2),
    ]
    model = graph(nodes, {"x": (1, 8, 5, 5)}, ["y"], {"d": weight(8, 1, 3, 3), "g": weight(6, 4, 1, 1)})
    each, groups = layers(model)
    assert (each.kind, each.macs, each.inner, each.outer) == ("depthwise", 8 * 25 * 9, 1, 1)
    assert (groups.kind, groups.macs, groups.inner, groups.outer) == ("conv", 6 * 25 * 4, 4, 3)


def test_a_transposed_convolution_multiplies_every_pixel_with_every_weight() -> None:
    model = graph(
        [node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])],
        {"x": (1, 4, 3, 5)},
        ["y"],
        {"w": weight(4, 6, 2, 2)},
    )
    [layer] = layers(model)
    assert (layer.macs, layer.inner, layer.outer) == (4 * 3 * 5 * 6 * 4, 4, 6)


def test_a_product_takes_transpositions_and_views_beside_it_for_nothing() -> None:
    model = graph(
        [
            node("Reshape", ["x", "flat"], ["v"], name="ctal/Reshape"),
            node("Transpose", ["v"], ["t"], perm=[0, 2, 1], name="ctal/Transpose"),
            node("MatMul", ["v", "t"], ["y"], name="ctal/MatMul"),
        ],
        {"x": (1, 4, 2, 3)},
        ["y"],
        {"flat": np.array([1, 4, 6], np.int64)},
    )
    [layer] = layers(model)
    assert (layer.kind, layer.macs, layer.inner, layer.outer) == ("product", 4 * 4 * 6, 6, 4)
    # Both sides are one map: it is read once.
    assert (layer.reads, layer.writes, layer.weights) == ((4 * 24,), (4 * 16,), 0)


def test_a_transposition_that_something_else_reads_is_a_pass_of_its_own() -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1], name="move"), node("Relu", ["t"], ["y"], name="relu")]
    [layer] = layers(graph(nodes, {"x": (1, 4, 2, 3)}, ["y"], {}))
    assert (layer.kind, layer.macs, layer.reads, layer.writes) == ("move", 0, (4 * 24,), (4 * 24,))


def test_resizing_reads_the_small_map_and_writes_the_large_one() -> None:
    model = graph(
        [
            node("Resize", ["x", "", "", "sizes"], ["r"], mode="linear", name="outputs.depth/Resize"),
            node("Add", ["r", "z"], ["y"], name="outputs.depth/Add"),
        ],
        {"x": (1, 2, 3, 4), "z": (1, 2, 6, 8)},
        ["y"],
        {"sizes": np.array([1, 2, 6, 8], np.int64)},
    )
    [layer] = layers(model)
    assert (layer.kind, layer.branch, layer.macs) == ("resize", "heads.depth", 0)
    # The sum is made on the way, so its other side is read, and the resized map is never written.
    assert (layer.reads, layer.writes, layer.weights) == ((4 * 24, 4 * 96), (4 * 96,), 0)


def rounded() -> onnx.ModelProto:
    """Return x -> Q/DQ -> conv of bytes -> relu -> Q/DQ -> conv of bytes, whose input a float sum reads, too."""
    scales = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "k": np.array(0.2, np.float32)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w1", "k", "z"], ["w1d"]),
        node("Conv", ["xd", "w1d"], ["a"], name="c1"),
        node("Relu", ["a"], ["r"], name="c1/Relu"),
        node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        node("DequantizeLinear", ["w2", "k", "z"], ["w2d"]),
        node("Conv", ["rd", "w2d"], ["b"], name="c2"),
        node("Add", ["b", "r"], ["y"], name="c2/Add"),
    ]
    constants = {"w1": np.ones((8, 4, 1, 1), np.int8), "w2": np.ones((8, 8, 1, 1), np.int8)}
    return graph(nodes, {"x": (1, 4, 2, 2)}, ["y"], constants | scales)


def test_rounding_costs_no_pass_and_halves_what_is_read() -> None:
    first, second = layers(rounded())
    assert (first.name, first.precision, second.name, second.precision) == ("c1", "int8", "c2", "int8")
    assert (first.macs, second.macs) == (8 * 4 * 4, 8 * 4 * 8)
    # Weights are kept as bytes; scales are not counted.
    assert (first.weights, second.weights) == (32, 64)
    # What bytes and floats read is written in both.
    assert sorted(first.writes) == [32, 4 * 32]
    assert second.reads == (32, 4 * 32)


def test_without_rounding_int8_is_what_rounding_would_give() -> None:
    nodes = [
        node("Conv", ["x", "v"], ["h"], name="c1"),
        node("Conv", ["h", "w"], ["k"], name="c2"),
        node("Add", ["k", "h"], ["y"], name="sum"),
    ]
    model = graph(nodes, {"x": (1, 4, 2, 2)}, ["y"], {"v": weight(8, 4, 1, 1), "w": weight(8, 8, 1, 1)})
    first, second = layers(model, "int8")
    assert (first.precision, second.precision, second.weights) == ("int8", "int8", 64)
    # Bytes for the convolution, float16 for the sum.
    assert sorted(first.writes) == [32, 2 * 32]


def test_maps_that_are_put_beside_each_other_are_written_there() -> None:
    nodes = [
        node("Conv", ["x", "v"], ["a"], name="c1"),
        node("Conv", ["x", "w"], ["b"], name="c2"),
        node("Concat", ["a", "b"], ["c"], axis=1, name="join"),
        node("Conv", ["c", "u"], ["y"], name="c3"),
    ]
    constants = {"v": weight(2, 4, 1, 1), "w": weight(6, 4, 1, 1), "u": weight(1, 8, 1, 1)}
    one, two, three = layers(graph(nodes, {"x": (1, 4, 3, 3)}, ["y"], constants))
    assert (one.writes, two.writes, three.reads) == ((4 * 2 * 9,), (4 * 6 * 9,), (4 * 8 * 9,))


def test_a_map_that_is_read_elsewhere_too_is_copied() -> None:
    nodes = [
        node("Conv", ["x", "v"], ["a"], name="c1"),
        node("Concat", ["a", "x"], ["c"], axis=1, name="join"),
        node("Conv", ["c", "u"], ["h"], name="c2"),
        node("Add", ["h", "a"], ["y"], name="sum"),
    ]
    model = graph(nodes, {"x": (1, 2, 3, 3)}, ["y"], {"v": weight(2, 2, 1, 1), "u": weight(2, 4, 1, 1)})
    assert [layer.kind for layer in layers(model)] == ["conv", "move", "conv"]


def test_bytes_that_are_moved_stay_bytes() -> None:
    scales = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    nodes = [
        node("Conv", ["x", "v"], ["a"], name="c1"),
        node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DepthToSpace", ["d"], ["m"], blocksize=2, name="shuffle"),
        node("Conv", ["m", "w"], ["y"], name="c2"),
    ]
    constants = {"v": weight(8, 4, 1, 1), "w": np.ones((3, 2, 1, 1), np.int8)} | scales
    nodes.insert(4, node("DequantizeLinear", ["w", "s", "z"], ["wd"]))
    nodes[5].input[1] = "wd"
    _, shuffle, last = layers(graph(nodes, {"x": (1, 4, 2, 2)}, ["y"], constants))
    assert (shuffle.kind, shuffle.reads, shuffle.writes) == ("move", (32,), (32,))
    assert last.precision == "int8"


def test_the_memory_of_maps_is_what_lives_at_one_time() -> None:
    # x 4 values; a 8, kept for the sum at the end; b 16; y 8: most are there while b is made to y.
    nodes = [
        node("Conv", ["x", "v"], ["a"], name="c1"),
        node("Conv", ["a", "w"], ["b"], name="c2"),
        node("Conv", ["b", "u"], ["c"], name="c3"),
        node("Add", ["c", "a"], ["y"], name="sum"),
    ]
    constants = {"v": weight(8, 4, 1, 1), "w": weight(16, 8, 1, 1), "u": weight(8, 16, 1, 1)}
    work = work_of(net_of(graph(nodes, {"x": (1, 4, 1, 1)}, ["y"], constants)))
    assert isinstance(work, Work)
    assert work.activation_bytes == 4 * (8 + 16 + 8)
    assert work.weight_bytes == 4 * (32 + 128 + 128)
    assert work.macs == 32 + 128 + 128


def test_a_weight_that_two_layers_share_is_in_memory_once() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"], name="c1"), node("Conv", ["a", "w"], ["y"], name="c2")]
    work = work_of(net_of(graph(nodes, {"x": (1, 4, 1, 1)}, ["y"], {"w": weight(4, 4, 1, 1)})))
    assert [layer.weights for layer in work.layers] == [64, 64]
    assert work.weight_bytes == 64


def test_extents_that_are_not_fixed_are_refused() -> None:
    made = helper.make_graph(
        [node("Relu", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 3))],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 3))],
    )
    with pytest.raises(ArtifactError, match=r"'y'.* are not fixed"):
        net_of(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]))


def test_a_type_that_is_not_known_is_refused() -> None:
    made = helper.make_graph(
        [node("Identity", ["x"], ["y"])],
        "text",
        [helper.make_tensor_value_info("x", TensorProto.STRING, (2,))],
        [helper.make_tensor_value_info("y", TensorProto.STRING, (2,))],
    )
    with pytest.raises(ArtifactError, match="STRING"):
        net_of(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]))
