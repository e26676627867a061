"""What stays in float32: each way for a node to get there, planted alone, and the same graph without it."""

import numpy as np
import onnx
import pytest

from emadeploy.calibrate import half_choice
from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_choice import choose
from emadeploy.calibrate.half_graph import unfit
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec

RNG = np.random.default_rng(9)
WEIGHT = RNG.normal(0, 0.3, (4, 3, 1, 1)).astype(np.float32)
WHOLE = (1, 4, 64, 96)


@pytest.fixture
def chosen(build, write_graph, frames, tmp_path):
    """Return a function that builds image -> Conv 'backbone.0/Conv' -> ``nodes`` -> depth, and chooses for it."""

    def make(nodes, constants, shape=WHOLE, weight=WEIGHT) -> dict[str, str]:
        spec = ModelSpec("planted", "hps", (TaskSpec("depth"),), InputSpec(64, 96))
        layers = [("Conv", "backbone.0/Conv", ["image", "w"], ["x"], {}), *nodes]
        model = build(layers, {"w": weight, **constants}, {"depth": shape})
        graph = write_graph(model, spec, tmp_path)
        choice = choose(graph, frames)
        to_half(model, choice.keep)
        return dict(choice.keep)

    return make


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def mul(factor: float, back: float):
    """Return nodes that blow values up and bring them back."""
    nodes = [
        ("Mul", "heads.depth/Mul", ["x", "up"], ["y"], {}),
        ("Mul", "heads.depth/Mul_1", ["y", "down"], ["depth"], {}),
    ]
    return nodes, {"up": scalar(factor), "down": scalar(back)}


def test_nothing_stays_where_nothing_must(chosen):
    assert chosen(*mul(2, 0.5)) == {}


def test_a_tensor_near_the_largest_number_keeps_all_that_touch_it(chosen):
    kept = chosen(*mul(2**14, 2**-14))
    assert set(kept) == {"heads.depth/Mul", "heads.depth/Mul_1"}
    assert kept["heads.depth/Mul"].startswith("overflow: 'y' reaches ")
    assert "on frame " in kept["heads.depth/Mul"]


def test_so_does_one_below_the_smallest(chosen):
    nodes = [
        ("Mul", "a/Mul", ["x", "up"], ["y"], {}),
        ("Mul", "a/Mul_1", ["y", "up"], ["z"], {}),
        ("Mul", "a/Mul_2", ["z", "down"], ["depth"], {}),
    ]
    kept = chosen(nodes, {"up": scalar(2**-12), "down": scalar(2**14)})
    assert kept["a/Mul_1"].startswith("underflow: 'z' is ")
    assert "a/Mul" not in kept


def test_partial_sums_count_though_their_result_is_small(chosen):
    # Half of the way is twice as far as the end, which is the difference of two channels.
    weight = np.stack([np.array([6000, -6000, 0], np.float32)] * 4)[..., None, None]
    kept = chosen([("Mul", "a/Mul", ["x", "down"], ["depth"], {})], {"down": scalar(2**-14)}, weight=weight)
    assert kept["backbone.0/Conv"].startswith("overflow: partial sums may reach 1")
    assert "a/Mul" not in kept


def test_sums_over_all_pixels_stay_by_rule(chosen):
    nodes = [
        ("ReduceMean", "ctal/ReduceMean", ["x", "axes"], ["m"], {}),
        ("Sub", "ctal/Sub", ["x", "m"], ["depth"], {}),
    ]
    assert chosen(nodes, {"axes": np.array([2, 3])}) == {"ctal/ReduceMean": "a sum of 6144 computed values"}


def test_a_sum_of_few_values_does_not(chosen):
    nodes = [("ReduceSum", "ctal/ReduceSum", ["x", "axes"], ["depth"], {})]
    assert chosen(nodes, {"axes": np.array([1])}, (1, 1, 64, 96)) == {}


def test_products_over_all_pixels_stay_by_rule(chosen):
    nodes = [
        ("Reshape", "ctal/Reshape", ["x", "flat"], ["v"], {}),
        ("Transpose", "ctal/Transpose", ["v"], ["k"], {"perm": [0, 2, 1]}),
        ("MatMul", "ctal/MatMul", ["v", "k"], ["depth"], {}),
    ]
    kept = chosen(nodes, {"flat": np.array([1, 4, 6144])}, (1, 4, 4))
    assert kept == {"ctal/MatMul": "a sum of 6144 computed values"}


def normalised(epsilon: float):
    nodes = [
        ("ReduceL2", "n/ReduceL2", ["x", "axes"], ["l"], {}),
        ("Clip", "n/Clip", ["l", "eps"], ["c"], {}),
        ("Reciprocal", "n/Reciprocal", ["c"], ["i"], {}),
        ("Mul", "n/Mul", ["i", "mix"], ["j"], {}),
        ("Mul", "n/Mul_1", ["x", "j"], ["u"], {}),
        ("Mul", "n/Mul_2", ["u", "mix"], ["depth"], {}),
    ]
    return nodes, {"axes": np.array([1]), "eps": scalar(epsilon), "mix": scalar(0.5)}


def test_what_comes_of_an_epsilon_stays_up_to_where_it_meets_other_values(chosen):
    kept = chosen(*normalised(1e-12))
    assert set(kept) == {"n/ReduceL2", "n/Clip", "n/Reciprocal", "n/Mul", "n/Mul_1"}
    assert kept["n/Mul_1"] == "what comes of the epsilon of 'n/Clip' can be infinite in float16"


def test_a_zero_feature_stays_zero(build, frames):
    """The reason for the rule: 1 / 1e-12 is infinite in float16, and NaN times zero."""
    import onnxruntime as ort

    from emadeploy.calibrate.half_rounding import rounded

    nodes, constants = normalised(1e-12)
    model = build([("Relu", "r/Relu", ["image"], ["x"], {}), *nodes], constants, {"depth": (1, 3, 64, 96)})
    black = {"image": -np.ones((1, 3, 64, 96), np.float32)}

    def answer(keep) -> np.ndarray:
        typed = rounded(to_half(model, keep)).SerializeToString()
        return ort.InferenceSession(typed, providers=["CPUExecutionProvider"]).run(None, black)[0]

    assert np.isnan(answer(unfit(model))).all(), "the Clip alone is not enough"
    kept = [*unfit(model), "n/Reciprocal", "n/Mul", "n/Mul_1"]
    np.testing.assert_array_equal(answer(kept), 0)


def test_a_harmless_epsilon_keeps_the_norm_alone(chosen):
    assert set(chosen(*normalised(1e-3))) == {"n/ReduceL2"}


def delicate():
    """Subtract what is nearly the same: a head that loses most of its bits."""
    nodes = [
        ("Add", "heads.depth/Add", ["x", "many"], ["y"], {}),
        ("Sub", "heads.depth/Sub", ["y", "many"], ["depth"], {}),
    ]
    return nodes, {"many": scalar(1000)}


def test_a_section_that_harms_its_task_goes_back_with_the_harm_as_its_reason(chosen):
    kept = chosen(*delicate())
    assert set(kept) == {"heads.depth/Add", "heads.depth/Sub"}
    assert kept["heads.depth/Add"].startswith("harm of its section: depth off by ")


def test_the_record_says_what_stays_why_and_what_is_left(build, write_graph, frames, tmp_path):
    nodes, constants = delicate()
    spec = ModelSpec("planted", "hps", (TaskSpec("depth"),), InputSpec(64, 96))
    layers = [("Conv", "backbone.0/Conv", ["image", "w"], ["x"], {}), *nodes]
    seen: list[tuple[int, int]] = []
    graph = write_graph(build(layers, {"w": WEIGHT, **constants}, {"depth": WHOLE}), spec, tmp_path)
    record = choose(graph, frames, lambda done, total: seen.append((done, total))).to_dict()
    assert seen == [(index + 1, half_choice.WATCHED) for index in range(half_choice.WATCHED)]
    assert record["float32"] == ["heads.depth/Add", "heads.depth/Sub"]
    assert [name for names in record["reasons"].values() for name in names] == record["float32"]
    assert record["errors"]["depth"] <= record["bound"] < record["probes"]["heads.depth"]["depth"]
    assert record["probes"]["backbone"]["depth"] < record["bound"]
    assert record["frames"]["sha256"] == frames.digest


def test_where_nothing_helps_the_export_is_refused(chosen, monkeypatch):
    monkeypatch.setattr(half_choice, "HARM", -1.0)
    with pytest.raises(
        CalibrationError, match=r"in float16, depth off by .* whatever stays in float32; .* in float32$"
    ):
        chosen(*mul(2, 0.5))


def test_a_network_that_is_damaged_is_refused(chosen):
    with pytest.raises(CalibrationError, match="'x' on frame 0 is not finite: the network itself is damaged"):
        chosen(*mul(2, 0.5), weight=np.full_like(WEIGHT, np.nan))


def test_on_a_real_network_the_products_over_pixels_and_the_lengths_stay(emanet, frames):
    choice = choose(emanet, frames)
    kept = {name.partition("spatial_att")[2] for name in choice.keep if "spatial_att" in name}
    assert {"/ReduceL2", "/Clip", "/Reciprocal"} <= kept
    layers = {node.name for node in onnx.load(emanet.path).graph.node if node.op_type == "Conv"}
    assert not layers & set(choice.keep)
    assert max(choice.errors.values()) <= half_choice.HARM
