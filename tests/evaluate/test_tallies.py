"""Classes, depth and normals against cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_frame import DEPTH, NORMALS, SEMSEG, measure

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.metrics import Metrics
from emadeploy.evaluate.tallies import ANGLE_BIN, LOG_FLOOR, angles_between

# --- class maps


def test_miou_by_hand():
    # Class 0: hit 1, union 2. Class 1: hit 1, union 3. Class 2: predicted twice, once where there is truth: union 1.
    values = measure(SEMSEG, [[0, 1, 1, 2, 2]], [[0, 0, 1, 1, 255]])
    assert values["miou"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 0) / 3)
    assert values["pixel_accuracy"] == pytest.approx(50)


def test_a_class_that_occurs_nowhere_does_not_lower_the_mean():
    assert measure(SEMSEG, [[0, 1]], [[0, 1]])["miou"] == 100


def test_a_class_predicted_only_on_ignored_pixels_does_not_occur():
    assert measure(SEMSEG, [[0, 2]], [[0, 255]])["miou"] == 100


def test_no_answer_is_wrong_but_blames_no_class():
    values = measure(SEMSEG, [[0, 255]], [[0, 0]])
    assert values == {"miou": 50.0, "pixel_accuracy": 50.0}
    assert measure(SEMSEG, [[255, 255]], [[0, 1]]) == {"miou": 0.0, "pixel_accuracy": 0.0}


@pytest.mark.parametrize(
    ("predicted", "truth", "message"), [(3, 0, "prediction holds the value 3"), (0, 7, "truth holds the value 7")]
)
def test_a_class_that_the_task_lacks_is_refused(predicted, truth, message):
    with pytest.raises(DataError, match=f"semseg: .*{message}"):
        measure(SEMSEG, [[predicted]], [[truth]])


def test_the_iou_of_each_class_has_its_name():
    named = TaskSpec("semseg", class_names=("bed", "books", "ceiling", "chair"))
    maps = ([[0, 1, 1, 2, 2]], [[0, 0, 1, 1, 255]])
    for task, names in ((named, ("bed", "books", "ceiling")), (TaskSpec("semseg", channels=4), "012")):
        metrics = Metrics([task, DEPTH])
        assert metrics.per_class() == {}
        metrics.update(*({"semseg": np.asarray(map_HW, np.uint8)} for map_HW in maps))
        # The fourth class occurs nowhere; the third is never true.
        assert metrics.per_class() == {"semseg": pytest.approx(dict(zip(names, (50, 100 / 3, 0), strict=True)))}


def test_the_confusion_is_that_of_all_frames_and_not_a_mean_of_frames():
    metrics = Metrics([SEMSEG])
    for predicted, truth in (([[0, 0, 0, 0]], [[0, 0, 0, 1]]), ([[1]], [[1]])):
        metrics.update({"semseg": np.asarray(predicted, np.uint8)}, {"semseg": np.asarray(truth, np.uint8)})
    assert metrics.compute()["semseg"] == pytest.approx({"miou": (75 + 50) / 2, "pixel_accuracy": 80})


# --- depth


def test_depth_by_hand():
    values = measure(DEPTH, [[1.0, 3.0, 9.0, 0.0]], [[2.0, 3.0, 0.0, 1.0]])
    assert values["abs"] == pytest.approx((1 + 0 + 1) / 3)
    assert values["rel"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert values["rmse"] == pytest.approx((2 / 3) ** 0.5)
    assert values["delta1"] == values["delta2"] == values["delta3"] == pytest.approx(100 / 3)


def test_the_logarithm_of_depth_by_hand():
    assert measure(DEPTH, [[2.0, 3.0]], [[1.0, 3.0]])["log_rmse"] == pytest.approx(np.log(2) / 2**0.5)
    # No answer counts as LOG_FLOOR, and so does what is under it.
    for guess in (0.0, 1e-5, LOG_FLOOR):
        assert measure(DEPTH, [[guess]], [[1.0]])["log_rmse"] == pytest.approx(np.log(1000))


def test_depth_under_zero_counts_as_zero():
    assert measure(DEPTH, [[-3.0]], [[2.0]]) == measure(DEPTH, [[0.0]], [[2.0]])
    assert measure(DEPTH, [[-3.0]], [[2.0]])["abs"] == 2


def test_inverse_depth_is_judged_in_its_own_unit():
    inverse = TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger")
    values = measure(inverse, [[0.02, 0.3]], [[0.04, 0.2]])
    assert (values["abs"], values["rel"]) == pytest.approx(((0.02 + 0.1) / 2, (0.5 + 0.5) / 2))


def test_depth_thresholds_are_factors_to_either_side():
    values = measure(DEPTH, [[1.2, 1 / 1.2, 1.3, 1 / 1.6, 3.0]], np.ones((1, 5)))
    assert (values["delta1"], values["delta2"], values["delta3"]) == pytest.approx((40, 60, 80))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_depth_that_is_not_finite_is_refused(value):
    with pytest.raises(DataError, match=r"depth: .*not finite"):
        measure(DEPTH, [[value]], [[1.0]])
    assert measure(DEPTH, [[value, 1.0]], [[0.0, 1.0]])["abs"] == 0  # where there is no truth it does not matter


# --- normals


def test_normals_by_hand():
    up, right, diagonal = (0, 0, 1), (1, 0, 0), (0, 2, 2)
    values = measure(NORMALS, [[up, up, up, up]], [[up, diagonal, right, (0, 0, 0)]])
    assert values["mean"] == pytest.approx((0 + 45 + 90) / 3)
    assert values["median"] == pytest.approx(45, abs=0.011)
    assert values["rmse"] == pytest.approx(((45**2 + 90**2) / 3) ** 0.5)
    assert values["within_11_25"] == values["within_22_5"] == values["within_30"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(("degrees", "name"), [(11.25, "within_11_25"), (22.5, "within_22_5"), (30, "within_30")])
def test_shares_of_normals_begin_under_their_limit(degrees, name):
    def share(angle: float) -> float:
        radians = np.radians(angle)
        return measure(NORMALS, [[(np.sin(radians), 0, np.cos(radians))]], [[(0, 0, 1)]])[name]

    assert share(degrees - 0.02) == 100
    assert share(degrees + 0.02) == 0


def test_no_normal_is_a_right_angle_off():
    assert measure(NORMALS, [[(0, 0, 0)]], [[(0, 0, 1)]])["mean"] == 90


def test_angles_are_those_of_the_arccos_and_exact_at_the_ends():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 100, 3))
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(angles_between(a, b), np.degrees(np.arccos(cosine)))
    assert not angles_between(a, 3 * a).max() > 1e-5
    np.testing.assert_allclose(angles_between(a, -a), 180)


def test_median_and_shares_agree_with_numpy():
    rng = np.random.default_rng(2)
    predicted, truth = rng.normal(size=(2, 40, 50, 3)).astype(np.float32)
    predicted = truth + 0.4 * predicted
    angles = angles_between(predicted, truth)
    values = measure(NORMALS, predicted, truth)
    assert values["mean"] == pytest.approx(angles.mean())
    assert values["rmse"] == pytest.approx(np.sqrt(np.mean(angles**2)))
    assert values["median"] == pytest.approx(np.median(angles), abs=ANGLE_BIN)
    assert values["within_22_5"] == pytest.approx(100 * np.mean(angles < 22.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 180), min_size=1, max_size=40))
def test_the_median_is_within_a_bin_of_the_true_one(degrees):
    radians = np.radians(degrees)
    predicted = np.stack([np.sin(radians), np.zeros_like(radians), np.cos(radians)], axis=-1)[None]
    median = measure(NORMALS, predicted, np.broadcast_to((0, 0, 1), predicted.shape))["median"]
    middle = np.sort(degrees)[(len(degrees) - 1) // 2]
    assert median == pytest.approx(middle, abs=ANGLE_BIN + 1e-4)  # float32 moves angles by a little


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_normals_that_are_not_finite_are_refused(value):
    with pytest.raises(DataError, match=r"normals: .*not finite"):
        measure(NORMALS, [[(value, 0, 1)]], [[(0, 0, 1)]])
    assert measure(NORMALS, [[(value, value, 1), (0, 0, 1)]], [[(0, 0, 0), (0, 0, 1)]])["mean"] == 0
