"""odsF: the matching where the right one is known, the sums over pictures, and what happens without scipy."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from emadeploy.contract.errors import BackendMissing, DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate import boundaries
from emadeploy.evaluate.boundaries import BoundaryTally, pairs
from emadeploy.evaluate.metrics import Metrics, default_edges

EDGE = TaskSpec("edge")
#: Its diagonal is 500 pixels, so the tolerance is 3.75.
SIZE = (300, 400)


def points(*places: tuple[int, int], shape: tuple[int, int] = (12, 12)) -> np.ndarray:
    """Return the mask of these (row, column)."""
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


def lines(*rows: tuple[int, float], until: int = 400) -> np.ndarray:
    """Return a map with horizontal lines: (row, value), from the left edge to column ``until``."""
    map_HW = np.zeros(SIZE, np.float32)
    for row, value in rows:
        map_HW[row, :until] = value
    return map_HW


def odsf(*frames: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the odsF of predictions and truths."""
    tally = BoundaryTally(EDGE)
    for predicted, truth in frames:
        tally.update(predicted, truth.astype(np.uint8))
    return tally.compute()["odsf"]


def f_of(pairs: int, predicted: int, true: int) -> float:
    """Return the F-measure in percent."""
    return 100 * 2 * pairs / (predicted + true)


# --- matching


def test_the_nearest_first_would_lose_a_pair():
    # b at 2 and 5. The one at 3 is nearest to 2, which leaves nothing for the one at 0; it must take 5.
    a, b = points((0, 0), (0, 3)), points((0, 2), (0, 5))
    assert pairs(a, b, 2.0) == pairs(b, a, 2.0) == 2


def test_a_chain_gives_way_all_along():
    # Each a can have the b before it or the one after it; the last a has only the one before it.
    a = points(*((0, 2 * k) for k in range(1, 6)))
    b = points(*((0, 2 * k + 1) for k in range(5)))
    assert pairs(a, b, 1.0) == 5


def test_a_pixel_has_one_partner():
    assert pairs(points((5, 4), (5, 5), (5, 6)), points((5, 5)), 3.0) == 1
    assert pairs(points((5, 5)), points((5, 4), (5, 5), (5, 6)), 3.0) == 1


def test_the_distance_is_euclidean_and_the_radius_counts():
    a, b = points((2, 2)), points((5, 6))
    assert pairs(a, b, 5.0) == 1
    assert pairs(a, b, 4.99) == 0


def test_partners_are_not_looked_for_beyond_the_border():
    assert pairs(points((0, 11)), points((1, 0)), 3.0) == 0
    assert pairs(points((0, 0)), points((11, 11)), 3.0) == 0


def test_without_pixels_there_is_no_pair():
    nothing = points()
    assert pairs(nothing, points((1, 1)), 3.0) == pairs(points((1, 1)), nothing, 3.0) == pairs(nothing, nothing, 3) == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(0.5, 4.5),
    shares=st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
    chunk=st.sampled_from([1, 7, 4096]),
)
def test_as_many_pairs_as_an_assignment_finds(seed, radius, shares, chunk):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((9, 13)) < share for share in shares)
    distances = np.linalg.norm(np.argwhere(a)[:, None] - np.argwhere(b)[None], axis=-1)
    near = distances <= radius
    rows, columns = linear_sum_assignment(~near)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "_CHUNK", chunk)
        assert pairs(a, b, radius) == near[rows, columns].sum()


# --- the measure


def test_a_line_within_the_tolerance_is_found():
    truth = lines((100, 1))
    assert odsf((lines((103, 0.9)), truth)) == 100
    assert odsf((lines((104, 0.9)), truth)) == 0
    metrics = Metrics([EDGE], "odsf")
    metrics.update({"edge": lines((103, 0.9))}, {"edge": truth.astype(np.uint8)})
    row = metrics.compute()["edge"]
    assert list(row) == ["odsf", "f1"]
    # Pixel by pixel nothing is right: the best is to call everything an edge.
    assert row == {"odsf": 100, "f1": pytest.approx(f_of(400, 300 * 400, 400))}


def test_by_hand():
    # At 0.9 half of the line is found and nothing else; from 0.5 down there is a wrong line, too.
    predicted = lines((100, 0.9), until=200) + lines((200, 0.5), until=100)
    truth = lines((100, 1))
    assert odsf((predicted, truth)) == pytest.approx(f_of(200, 200, 400))
    # A wrong line that answers more strongly is there at every threshold that finds anything.
    predicted = lines((100, 0.9), until=200) + lines((200, 0.95), until=100)
    assert odsf((predicted, truth)) == pytest.approx(f_of(200, 300, 400))


def test_one_threshold_serves_all_pictures():
    truth = lines((100, 1))
    # The best threshold of one picture is over 0.8, of the other under 0.3; alone, both are perfect.
    strong, weak = lines((100, 0.9), (200, 0.8)), lines((100, 0.3))
    assert odsf((strong, truth)) == odsf((weak, truth)) == 100
    # Together: (400 pairs, 400 predicted) over 0.8, or (800 pairs, 1200 predicted), of 800 that are true.
    low, high = (800 / 1200, 1.0), (1.0, 0.5)
    assert odsf((strong, truth), (weak, truth)) == pytest.approx(100 * max(2 * p * r / (p + r) for p, r in (low, high)))


def test_between_two_thresholds_precision_and_recall_are_interpolated():
    tally = BoundaryTally(EDGE)
    tally.state[:] = [[100], [200], [100]]  # P = 0.5, R = 1
    tally.state[:2, 50:] = 50  # P = 1, R = 0.5: F = 2/3 for both, 0.75 half way
    assert tally.compute()["odsf"] == pytest.approx(75, abs=0.01)


def test_a_broad_answer_is_thinned_first():
    rows = np.abs(np.arange(300) - 150)
    broad = np.repeat(np.clip(1 - rows / 8, 0, 1)[:, None], 400, axis=1)
    plateau = np.where(np.repeat(rows[:, None], 400, axis=1) <= 2, 0.8, 0.0)
    for predicted in (broad, plateau):
        assert odsf((predicted, lines((150, 1)))) > 99


def test_an_answer_that_falls_off_to_one_side_is_found_at_its_crest():
    # Twenty pixels wide where it is strong, at the threshold that finds it all: its middle is out of reach.
    below = np.arange(300)[:, None] - 150
    falling = np.where((below >= 0) & (below < 25), 0.97 ** np.maximum(below, 0), 0) * np.linspace(0.5, 0.95, 400)
    assert odsf((falling, lines((150, 1)))) > 99


def test_a_picture_without_edges_counts_against_what_is_found_there():
    truth, found = lines((100, 1)), lines((100, 0.9))
    assert odsf((found, truth), (found, np.zeros(SIZE))) == pytest.approx(f_of(400, 800, 400))
    tally = BoundaryTally(EDGE)
    tally.update(found, np.zeros(SIZE, np.uint8))
    assert tally.compute() == {}


def test_what_is_ignored_is_neither_found_nor_missed():
    truth = lines((100, 1), (200, 1)).astype(np.uint8)
    truth[180:] = 255
    assert odsf((lines((100, 0.9), (200, 0.9), (250, 0.9)), truth)) == 100
    predicted = lines((100, 0.9))
    predicted[250] = np.nan  # where it does not matter
    assert odsf((predicted, truth)) == 100


def test_all_of_it_is_found_at_the_lowest_threshold_and_nothing_above_the_answer():
    tally = BoundaryTally(EDGE)
    tally.update(lines((100, 0.29)), lines((100, 1)).astype(np.uint8))
    np.testing.assert_array_equal(tally.state[0], np.where(np.arange(1, 100) <= 29, 400, 0))
    np.testing.assert_array_equal(tally.state[1], tally.state[0])
    np.testing.assert_array_equal(tally.state[2], 400)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 3))
def test_states_add_up(seed, cut):
    rng = np.random.default_rng(seed)
    # Few different values: few different sets of pixels to match.
    frames = [
        ({"edge": rng.integers(0, 5, (40, 60)) / 4}, {"edge": rng.integers(0, 2, (40, 60), np.uint8)}) for _ in range(3)
    ]

    def metrics_of(some: list) -> Metrics:
        metrics = Metrics([EDGE], "odsf")
        for predicted, truth in some:
            metrics.update(predicted, truth)
        return metrics

    joint, first, second = metrics_of(frames), metrics_of(frames[:cut]), metrics_of(frames[cut:])
    summed = Metrics.from_state([EDGE], first.state() + second.state(), "odsf")
    first.merge(pickle.loads(pickle.dumps(second)))
    assert summed.compute() == first.compute() == joint.compute()
    assert summed.frames == first.frames == {"edge": 3}


# --- refusals


@pytest.mark.parametrize(
    ("predicted", "truth", "message"), [(1.5, 1, "not a probability"), (0.5, 2, "truth holds the value 2")]
)
def test_what_is_not_a_probability_or_a_binary_truth_is_refused(predicted, truth, message):
    with pytest.raises(DataError, match=message):
        BoundaryTally(EDGE).update(np.full((4, 4), predicted), np.full((4, 4), truth, np.uint8))


def test_without_scipy_edges_have_f1_alone_and_odsf_is_refused(monkeypatch):
    assert default_edges() == "odsf"
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert default_edges() == "f1"
    with pytest.raises(BackendMissing, match=r"odsF of edges needs scipy.*pip install 'emadeploy\[eval\]'"):
        Metrics([EDGE], "odsf")
    Metrics([TaskSpec("depth")], "odsf")  # no edges, no scipy
    metrics = Metrics([EDGE], default_edges())
    metrics.update({"edge": lines((100, 0.9))}, {"edge": lines((100, 1)).astype(np.uint8)})
    assert metrics.compute() == {"edge": {"f1": 100.0}}


def test_an_unknown_measure_and_a_merge_of_two_are_refused():
    with pytest.raises(SpecError, match="edges 'best' is unknown; known: f1, odsf"):
        Metrics([EDGE], "best")
    with pytest.raises(SpecError, match="different tasks"):
        Metrics([EDGE]).merge(Metrics([EDGE], "odsf"))
    with pytest.raises(SpecError, match="in the same way"):
        Metrics.from_state([EDGE], Metrics([EDGE]).state(), "odsf")
