"""Edges, pixel by pixel, and saliency against cases by hand."""

import numpy as np
import pytest
from one_frame import EDGE, SALIENCY, measure

from emadeploy.contract.errors import DataError
from emadeploy.evaluate.metrics import Metrics


def test_best_f_by_hand():
    # Ordered by prediction, the truth reads 1, 0, 1, 0: cutting after the third gives P = 2/3, R = 1.
    predicted, truth = [[0.9, 0.8, 0.7, 0.1, 0.95]], [[1, 0, 1, 0, 255]]
    assert measure(EDGE, predicted, truth) == {"f1": pytest.approx(100 * 2 * (2 / 3) / (2 / 3 + 1))}
    # With beta^2 = 0.3, precision weighs more: cutting after the first (P = 1, R = 1/2) is better.
    assert measure(SALIENCY, predicted, truth)["maxf"] == pytest.approx(100 * 1.3 * 0.5 / (0.3 + 0.5))


def test_best_f_is_the_best_over_all_thresholds():
    rng = np.random.default_rng(4)
    predicted, truth = rng.integers(0, 101, (30, 30)) / 100, rng.integers(0, 2, (30, 30))

    def f1(threshold: float) -> float:
        positive = np.float32(predicted) >= np.float32(threshold)
        return 2 * np.sum(positive & (truth == 1)) / (positive.sum() + truth.sum())

    assert measure(EDGE, predicted, truth)["f1"] == pytest.approx(100 * max(f1(k / 100) for k in range(101)))


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [(1.5, 1, "not a probability"), (np.nan, 1, "not a probability"), (0.5, 2, "truth holds the value 2")],
)
def test_what_is_not_a_probability_or_a_binary_truth_is_refused(predicted, truth, message):
    with pytest.raises(DataError, match=f"edge: .*{message}"):
        measure(EDGE, [[predicted]], [[truth]])


def test_without_a_positive_pixel_there_is_no_f():
    assert measure(EDGE, [[0.5]], [[0]]) == {}
    assert measure(SALIENCY, [[0.5]], [[0]]) == {}  # nor is half a task reported


def test_saliency_has_255_thresholds_over_zero():
    # One step apart, two values are two thresholds; what is 0 is found by none.
    predicted, truth = np.array([[100, 101, 0]]) / 255, [[0, 1, 1]]
    assert measure(SALIENCY, predicted, truth)["maxf"] == pytest.approx(100 * 1.3 * 0.5 / (0.3 + 0.5))
    assert measure(SALIENCY, [[0.0, 0.0]], [[1, 1]])["maxf"] == 0


def saliency(*frames: tuple[list, list]) -> dict[str, float]:
    """Return the metrics of saliency of several frames."""
    metrics = Metrics([SALIENCY])
    for predicted, truth in frames:
        maps = np.asarray([predicted], np.float32), np.asarray([truth], np.uint8)
        metrics.update(*({"saliency": map_HW} for map_HW in maps))
    return metrics.compute()["saliency"]


def test_maxf_is_of_the_pixels_of_all_pictures():
    # Together 3 of 4 that are found are right, and 3 of 3 are found.
    values = saliency(([1, 1, 1], [1, 1, 1]), ([1], [0]))
    assert values["maxf"] == pytest.approx(100 * 1.3 * 0.75 * 1 / (0.3 * 0.75 + 1))


def test_the_iou_of_saliency_is_a_mean_over_pictures_at_one_threshold():
    wide, narrow = ([0.8, 0.8, 0.3, 0.0], [1, 1, 0, 0]), ([0.3], [1])
    # Over 0.3: (1 + 0) / 2; under it: (2/3 + 1) / 2.
    assert saliency(wide, narrow)["miou"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    # Nothing salient and nothing found is right; ignored everywhere is no picture.
    assert saliency(wide, ([0.1], [0]))["miou"] == pytest.approx(100 * (1 + 1) / 2)
    assert saliency(wide, ([0.1], [255])) == saliency(wide)


def test_the_thresholds_of_that_iou_are_left_by_what_is_on_them():
    # 0.9, the last threshold, finds what is above it alone.
    assert saliency(([0.9, 0.91], [0, 1]))["miou"] == 100
    assert saliency(([0.9, 0.91], [1, 1]), ([0.21, 0.2], [1, 0]))["miou"] == 100
    assert saliency(([0.2], [1]))["miou"] == 0


def test_the_error_of_saliency_is_a_mean_over_pictures():
    assert saliency(([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]), ([0.9], [1]))["mae"] == pytest.approx((0.5 + 0.1) / 2)
