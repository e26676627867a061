"""Agreement of two networks: cases by hand, quantiles against numpy, refusals."""

import math

import numpy as np
import pytest

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.parity import MEASURES, Parity, raw_error


def compare(kind: str, *frames: tuple[object, object]) -> dict[str, float]:
    """Return the parity of frames (candidate, reference) of one task."""
    task = TaskSpec(kind, channels=5) if kind in ("semseg", "human_parts") else TaskSpec(kind)
    parity = Parity([task])
    for candidate, reference in frames:
        parity.update({kind: np.asarray(candidate)}, {kind: np.asarray(reference)})
    return parity.compute().get(kind, {})


def test_labels_agree_over_all_frames():
    # Classes 0, 1 and 4 are the same everywhere, 2 and 3 nowhere.
    assert compare("semseg", ([[0, 1, 2]], [[0, 1, 3]]), ([[4]], [[4]])) == {"agreement": 75.0, "miou": 60.0}
    assert compare("human_parts", ([[0]], [[1]])) == {"agreement": 0.0, "miou": 0.0}


def test_miou_is_that_of_all_frames_together_and_not_a_mean_of_frames():
    values = compare("semseg", ([[0, 0, 1]], [[0, 0, 0]]), ([[1]], [[1]]))
    assert values["miou"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


def test_where_neither_has_a_label_they_agree_and_no_class_is_judged():
    assert compare("semseg", ([[255]], [[255]])) == {"agreement": 100.0}
    # A has no answer where B has one: another class, and a miss of class 1.
    assert compare("semseg", ([[255, 1]], [[1, 1]])) == {"agreement": 50.0, "miou": 50.0}


def test_an_update_says_how_far_each_pixel_differs():
    tasks = (TaskSpec("semseg", channels=3), TaskSpec("depth"), TaskSpec("normals"), TaskSpec("edge"))
    x, z = (1.0, 0, 0), (0, 0, 1.0)
    reference = {"semseg": [[0, 1]], "depth": [[2.0, 4.0]], "normals": [[x, x]], "edge": [[0.5, 0.5]]}
    candidate = {"semseg": [[0, 2]], "depth": [[2.0, 3.0]], "normals": [[x, z]], "edge": [[0.5, 0.75]]}
    differences = Parity(tasks).update(
        {name: np.array(map_) for name, map_ in candidate.items()},
        {name: np.array(map_) for name, map_ in reference.items()},
    )
    expected = {"semseg": [[0, 1]], "depth": [[0, 0.25]], "normals": [[0, 90]], "edge": [[0, 0.25]]}
    assert {name: map_.tolist() for name, map_ in differences.items()} == expected


@pytest.mark.parametrize(
    ("kind", "candidate", "reference"),
    [
        ("semseg", [[0]], [[1]]),
        ("depth", [[1.0]], [[2.0]]),
        ("normals", [[(1.0, 0, 0)]], [[(0, 1.0, 0)]]),
        ("edge", [[0.0]], [[1.0]]),
    ],
)
def test_every_measure_is_described(kind, candidate, reference):
    assert set(compare(kind, (candidate, reference))) <= set(MEASURES)


def test_depth_is_relative_to_the_reference():
    values = compare("depth", ([[1.1, 2.0]], [[1.0, 4.0]]))
    assert values["rel_mean"] == pytest.approx((0.1 + 0.5) / 2)
    assert values["rel_p99"] == pytest.approx(0.5, rel=0.012)


def test_depth_beside_zero_is_compared_at_the_floor():
    assert compare("depth", ([[0.0]], [[0.0]])) == {"rel_mean": 0.0, "rel_p99": 0.0}
    assert compare("depth", ([[0.002]], [[0.0]]))["rel_mean"] == pytest.approx(2)


def test_normals_by_hand():
    x, z, none = (1.0, 0, 0), (0, 0, 1.0), (0.0, 0, 0)
    values = compare("normals", ([[x, z, none, none]], [[x, x, x, none]]))
    assert values["mean"] == pytest.approx((0 + 90 + 90 + 0) / 4)
    assert values["p95"] == pytest.approx(90, rel=0.012)


def test_probabilities_by_hand():
    values = compare("edge", ([[0.5, 0.25]], [[0.5, 0.5]]), ([[1.0, 0.0]], [[0.0, 0.0]]))
    assert values == {"mean_abs": pytest.approx(1.25 / 4), "max_abs": 1.0}


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0])
def test_quantiles_agree_with_numpy(scale):
    rng = np.random.default_rng(0)
    reference = rng.uniform(1, 5, (50, 80))
    errors = scale * rng.exponential(size=(50, 80))
    values = compare("depth", (reference * (1 + errors), reference))
    assert values["rel_p99"] == pytest.approx(np.quantile(errors, 0.99), rel=0.03)
    assert values["rel_mean"] == pytest.approx(errors.mean())


def test_equal_maps_differ_by_nothing():
    rng = np.random.default_rng(1)
    normals = rng.normal(size=(5, 6, 3)).astype(np.float32)
    assert compare("normals", (normals, normals)) == {"mean": 0.0, "p95": 0.0}
    assert compare("saliency", (normals[..., 0], normals[..., 0])) == {"mean_abs": 0.0, "max_abs": 0.0}


def test_before_the_first_frame_there_is_nothing():
    assert Parity([TaskSpec("depth"), TaskSpec("edge"), TaskSpec("normals")]).compute() == {}


@pytest.mark.parametrize(
    ("candidate", "reference", "message"),
    [
        ({}, {"depth": np.ones((2, 2))}, "the candidate has no 'depth'; it has no map at all"),
        ({"depth": np.ones((2, 2))}, {"edge": np.ones((2, 2))}, "the reference has no 'depth'; it has edge"),
        ({"depth": np.ones((2, 3))}, {"depth": np.ones((2, 2))}, r"shape \(2, 3\), the reference \(2, 2\)"),
        ({"depth": np.full((1, 1), np.nan)}, {"depth": np.ones((1, 1))}, "depth: the candidate holds .* not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidate, reference, message):
    with pytest.raises(DataError, match=message):
        Parity([TaskSpec("depth")]).update(candidate, reference)


def test_a_class_that_the_task_does_not_have_is_refused():
    with pytest.raises(DataError, match="semseg: the prediction holds the value 5; expected 0 to 4, or 255"):
        compare("semseg", ([[5]], [[1]]))


def test_raw_error_is_relative():
    reference = np.array([3.0, 4.0], np.float32)
    assert raw_error(reference, reference) == 0
    assert raw_error(np.array([3.0, 4.5], np.float32), reference) == pytest.approx(0.1)
    assert raw_error(np.zeros(2), np.zeros(2)) == 0
    assert raw_error(np.ones(2), np.zeros(2)) == math.inf


def test_raw_error_of_what_overflowed_passes_no_limit():
    assert raw_error(np.array([np.nan]), np.ones(1)) == math.inf
    assert raw_error(np.ones(1), np.array([np.inf])) == math.inf
    with pytest.raises(DataError, match=r"\(2,\) and \(3,\)"):
        raw_error(np.ones(2), np.ones(3))
