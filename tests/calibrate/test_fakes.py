"""Passes over OpenVINO graphs with fakes: each on a graph of a few nodes whose answers are known."""

import numpy as np
import pytest

pytest.importorskip("openvino")
import openvino as ov
from openvino import opset13 as ops

from emadeploy.calibrate import fakes
from emadeploy.contract.errors import CalibrationError
from emadeploy.runtime.backends.openvino import CORE

SHAPE = (1, 4, 6, 8)
STEP = 2.0 / 127


def fake(value, top: float = 2.0) -> ov.Node:
    high, low = (ops.constant(np.float32(sign * top)) for sign in (1, -1))
    return ops.fake_quantize(value, low, high, low, high, 255)


def convolution(name: str, value, seed: int = 0) -> ov.Node:
    weight = np.random.default_rng(seed).uniform(-1, 1, (4, 4, 1, 1)).astype(np.float32)
    node = ops.convolution(value, fake(ops.constant(weight), 1.0), [1, 1], [0, 0], [0, 0], [1, 1])
    node.set_friendly_name(name)
    return node


def image() -> ov.Node:
    return ops.parameter(SHAPE, np.float32, name="image")


def run(model: ov.Model, seed: int = 1) -> list[np.ndarray]:
    given = np.random.default_rng(seed).uniform(-2, 2, SHAPE).astype(np.float32)
    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled(given).values()]


def count(model: ov.Model, kind: str = "FakeQuantize") -> int:
    return sum(node.get_type_name() == kind for node in model.get_ops())


def shifted(tops: list[float]) -> ov.Model:
    """Pad an image and answer nine windows of it, each rounded in a range of its own."""
    given = image()
    edge = ops.constant(np.array([0, 0, 1, 1]))
    padded = ops.pad(given, edge, edge, "constant", ops.constant(np.float32(0)))
    answers = []
    for index, top in enumerate(tops):
        row, column = divmod(index, 3)
        window = ops.slice(
            padded,
            ops.constant(np.array([row, column])),
            ops.constant(np.array([row + 6, column + 8])),
            ops.constant(np.array([1, 1])),
            ops.constant(np.array([2, 3])),
        )
        answers.append(fake(ops.transpose(window, ops.constant(np.array([0, 2, 3, 1]))), top))
    return ov.Model(answers, [given], "shifted")


def test_hoist_rounds_once_before_the_padding():
    model = shifted([2.0] * 9)
    before = run(model)
    assert fakes.hoist(model) == 9
    assert count(model) == 1
    [pad] = [node for node in model.get_ops() if node.get_type_name() == "Pad"]
    assert pad.input_value(0).get_node().get_type_name() == "FakeQuantize"
    for one, other in zip(before, run(model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_hoist_takes_the_widest_range():
    model = shifted([1.0, 1.5, 2.0, *[1.0] * 6])
    exact = run(shifted([2.0] * 9))
    fakes.hoist(model)
    for one, other in zip(exact, run(model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_hoist_leaves_a_padding_that_one_layer_reads():
    model = shifted([2.0])
    assert fakes.hoist(model) == 0
    assert count(model) == 1


@pytest.fixture
def pair() -> ov.Model:
    """Return two convolutions that read one fake, each with one on its weights."""
    given = image()
    shared = fake(given)
    return ov.Model([convolution("a/Conv", shared, 1), convolution("b/Conv", shared, 2)], [given], "pair")


def test_compute_nodes_go_by_their_names_in_the_graph(pair):
    assert list(fakes.compute_nodes(pair)) in (["a/Conv", "b/Conv"], ["b/Conv", "a/Conv"])
    node = fakes.compute_nodes(pair)["a/Conv"]
    node.set_friendly_name("a/Conv/WithoutBiases")
    assert set(fakes.compute_nodes(pair)) == {"a/Conv", "b/Conv"}
    assert fakes.depthwise_nodes(pair) == frozenset()


def test_depthwise_convolutions_are_found():
    given = image()
    weight = ops.constant(np.ones((4, 1, 1, 1, 1), np.float32))
    filtered = ops.group_convolution(given, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    filtered.set_friendly_name("spread/Conv")
    assert fakes.depthwise_nodes(ov.Model([filtered], [given], "filtered")) == {"spread/Conv"}


def test_release_takes_out_what_no_other_layer_needs(pair):
    assert count(pair) == 3
    fakes.release(pair, {"a/Conv"})
    nodes = fakes.compute_nodes(pair)
    sources = {name: [v.get_node().get_type_name() for v in node.input_values()] for name, node in nodes.items()}
    assert sources == {"a/Conv": ["FakeQuantize", "Constant"], "b/Conv": ["FakeQuantize", "FakeQuantize"]}
    fakes.release(pair, {"a/Conv", "b/Conv"})
    assert count(pair) == 0


def test_release_of_everything_is_the_network_in_float(pair):
    given = np.random.default_rng(1).uniform(-2, 2, SHAPE).astype(np.float32)
    fakes.release(pair, {"a/Conv", "b/Conv"})
    weight = np.random.default_rng(1).uniform(-1, 1, (4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(pair)[0], np.einsum("oc,bchw->bohw", weight, given), atol=1e-5)


def test_release_takes_out_the_rounding_of_a_sum_once_nothing_around_it_is_in_int8():
    given = image()
    shared = fake(given)
    total = ops.add(fake(convolution("a/Conv", shared, 1)), fake(convolution("b/Conv", shared, 2)))
    model = ov.Model([total], [given], "sum")
    fakes.release(model, {"a/Conv"})
    assert count(model) == 3
    fakes.release(model, {"a/Conv", "b/Conv"})
    assert count(model) == 0


def test_release_of_nothing_changes_nothing(pair):
    fakes.release(pair, ())
    assert count(pair) == 3


def test_release_refuses_a_name_that_is_no_layer(pair):
    with pytest.raises(CalibrationError, match="no layer of the graph: nowhere/Conv"):
        fakes.release(pair, {"a/Conv", "nowhere/Conv"})


def products() -> ov.Model:
    """Return two products of the same two rounded maps, through nodes that only move them."""
    given = image()
    left = fake(given)
    right = fake(ops.relu(given))
    turned = ops.transpose(right, ops.constant(np.array([0, 1, 3, 2])))
    made = [ops.matmul(left, turned, False, False) for _ in "ab"]
    for name, node in zip("ab", made, strict=True):
        node.set_friendly_name(f"{name}/MatMul")
    return ov.Model(made, [given], "products")


def test_release_refuses_a_layer_that_shares_all_of_its_inputs():
    with pytest.raises(CalibrationError, match="a/MatMul cannot be kept in higher precision alone"):
        fakes.release(products(), {"a/MatMul"})
    both = products()
    fakes.release(both, {"a/MatMul", "b/MatMul"})
    assert count(both) == 0


def test_compressed_weights_are_bytes_and_answer_the_same(pair):
    fakes.release(pair, {"a/Conv"})
    before = run(pair)
    fakes.compress_weights(pair)
    constants = [node for node in pair.get_ops() if node.get_type_name() == "Constant"]
    weights = {node.get_element_type().get_type_name() for node in constants if len(node.get_output_shape(0)) == 4}
    assert {"i8", "f32"} <= weights
    for one, other in zip(before, run(pair), strict=True):
        np.testing.assert_allclose(one, other, atol=STEP)
