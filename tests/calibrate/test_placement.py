"""Where pairs stand: the rules of each engine on small graphs, and on a whole EMA-Net."""

import numpy as np
import onnx
import pytest

from emadeploy.calibrate.placement import COMPUTE, Topology, place_for_onnxruntime, place_for_tensorrt
from emadeploy.contract.errors import CalibrationError

PADS = {"pads": [1, 1, 1, 1]}
KERNEL = np.full((3, 3, 3, 3), 0.1, np.float32)
SHAPE = {"out": (1, 3, 64, 96)}
PLACES = [place_for_tensorrt, place_for_onnxruntime]


def conv(name: str, read: str, made: str):
    return ("Conv", f"{name}/Conv", [read, "kernel"], [made], PADS)


@pytest.fixture
def residual(build):
    """Return conv1 -> relu -> conv2 + relu's -> relu -> conv3 -> conv4."""
    nodes = [
        conv("conv1", "image", "a"),
        ("Relu", "conv1/Relu", ["a"], ["x"], {}),
        conv("conv2", "x", "b"),
        ("Add", "block/Add", ["b", "x"], ["c"], {}),
        ("Relu", "block/Relu", ["c"], ["d"], {}),
        conv("conv3", "d", "e"),
        conv("conv4", "e", "out"),
    ]
    return build(nodes, {"kernel": KERNEL}, SHAPE)


def test_tensorrt_gets_pairs_on_the_inputs_of_products_and_on_the_residual(residual):
    placement = place_for_tensorrt(residual)
    convolutions = tuple(f"conv{number}/Conv" for number in (1, 2, 3, 4))
    assert placement.layers == convolutions
    assert placement.float_layers == ()
    assert placement.operands == {*((name, 0) for name in convolutions), ("block/Add", 1)}
    assert placement.results == set()


def test_tensorrt_leaves_a_sum_without_an_int8_convolution_in_float(residual):
    assert ("block/Add", 1) not in place_for_tensorrt(residual, ["conv2/Conv"]).operands


def test_of_two_convolutions_in_a_sum_the_second_gets_the_pair(build):
    nodes = [
        conv("conv1", "image", "a"),
        conv("conv2", "image", "b"),
        ("Add", "block/Add", ["a", "b"], ["c"], {}),
        conv("conv3", "c", "out"),
    ]
    operands = place_for_tensorrt(build(nodes, {"kernel": KERNEL}, SHAPE)).operands
    assert ("block/Add", 1) in operands
    assert ("block/Add", 0) not in operands


def test_onnxruntime_gets_pairs_behind_the_relu_and_around_the_sum(residual):
    placement = place_for_onnxruntime(residual)
    assert placement.results == {"x", "b", "d", "e"}
    assert {("conv1/Conv", 0), ("block/Add", 0), ("block/Add", 1), ("conv2/Conv", 0)} <= placement.operands
    assert placement.layers == ("conv1/Conv", "conv2/Conv", "conv3/Conv")
    assert placement.float_layers == ("conv4/Conv",), "it answers"


def test_without_zero_points_the_pair_stands_before_the_relu(residual):
    assert place_for_onnxruntime(residual, symmetric=True).results == {"a", "b", "c", "e"}


@pytest.fixture
def resized(build):
    """Return conv1 -> resize -> conv2 -> conv3 -> resize: one between convolutions, and one that answers."""
    resize = {"mode": "linear"}
    nodes = [
        conv("conv1", "image", "a"),
        ("Resize", "up/Resize", ["a", "", "scales"], ["b"], resize),
        conv("conv2", "b", "c"),
        conv("conv3", "c", "d"),
        ("Resize", "out/Resize", ["d", "", "scales"], ["out"], resize),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    return build(nodes, {"kernel": KERNEL, "scales": scales}, {"out": (1, 3, 256, 384)})


def test_tensorrt_gets_no_pair_in_front_of_a_resize(resized):
    placement = place_for_tensorrt(resized)
    assert placement.operands == {("conv1/Conv", 0), ("conv2/Conv", 0), ("conv3/Conv", 0)}


def test_onnxruntime_resizes_bytes_between_layers_and_floats_for_answers(resized):
    placement = place_for_onnxruntime(resized)
    assert placement.results == {"a", "b", "c"}
    assert placement.float_layers == ("conv3/Conv",)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_concatenated_shares_a_scale(build, place):
    nodes = [
        conv("conv1", "image", "a"),
        conv("conv2", "image", "b"),
        ("Concat", "both/Concat", ["a", "b"], ["c"], {"axis": 1}),
        ("Conv", "conv3/Conv", ["c", "wide"], ["d"], PADS),
        conv("conv4", "d", "out"),
    ]
    placement = place(build(nodes, {"kernel": KERNEL, "wide": np.ones((3, 6, 3, 3), np.float32)}, SHAPE))
    assert placement.shared == (frozenset("abc"),)


@pytest.mark.parametrize("place", PLACES)
def test_kept_layers_get_no_pair_of_their_own(residual, place):
    placement = place(residual, ["conv2/Conv"])
    assert "conv2/Conv" in placement.float_layers
    assert ("conv2/Conv", 0) not in placement.operands
    assert "b" not in placement.results


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["nowhere/Conv", "block/Add"])
def test_only_products_of_the_graph_can_be_kept(residual, place, name):
    with pytest.raises(CalibrationError, match=rf"cannot keep '{name}' in higher precision: .* such as 'conv1/Conv'"):
        place(residual, [name])
    assert place(residual, ["conv1/Conv"]).float_layers[0] == "conv1/Conv"


@pytest.fixture(scope="module")
def network(emanet):
    return onnx.load(emanet.path)


def products_of_ctal(model: onnx.ModelProto) -> list[str]:
    names = [n.name for n in model.graph.node if n.op_type == "MatMul" and "spatial_att" in n.name]
    assert any(".gather" in name for name in names)
    assert any(".spread" in name for name in names)
    return names


@pytest.mark.parametrize("place", PLACES)
def test_both_inputs_of_both_products_of_ctal_carry_pairs(network, place):
    operands = place(network).operands
    for name in products_of_ctal(network):
        assert {(name, 0), (name, 1)} <= operands


@pytest.mark.parametrize("place", PLACES)
def test_the_shifted_copies_of_the_exact_keys_share_one_scale(network, place):
    nodes = {node.name: node for node in network.graph.node}
    keys = {nodes[name].input[1] for name in products_of_ctal(network) if ".gather" in name}
    assert len(keys) == 9
    assert any(keys <= group for group in place(network).shared)


@pytest.mark.parametrize("place", PLACES)
def test_a_kept_product_of_ctal_carries_none(network, place):
    kept = products_of_ctal(network)[0]
    operands = place(network, [kept]).operands
    assert not {(kept, 0), (kept, 1)} & operands


@pytest.mark.parametrize("place", PLACES)
def test_all_products_of_the_network_run_in_int8_but_those_that_answer(network, place):
    placement = place(network)
    products = [node.name for node in network.graph.node if node.op_type in COMPUTE]
    assert [*placement.layers, *placement.float_layers] != []
    assert set(placement.layers) | set(placement.float_layers) == set(products)
    answering = {"heads.semseg.2/Conv", "heads.depth.2/Conv", "heads.normals.2/Conv"}
    assert set(placement.float_layers) == (answering if place is place_for_onnxruntime else set())
    for name in placement.layers:
        assert (name, 0) in placement.operands


def test_no_pair_stands_in_front_of_a_resize_of_the_network_for_tensorrt(network):
    placement = place_for_tensorrt(network)
    assert not placement.results
    types = {Topology(network).nodes[name].op_type for name, _ in placement.operands}
    assert types == {"Conv", "MatMul", "Add"}
