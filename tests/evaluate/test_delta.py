"""The multi-task gain against cases by hand."""

import pytest

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.evaluate.delta import delta_m, task_gains

BASE = {
    "semseg": {"miou": 40.0, "pixel_accuracy": 80.0},
    "depth": {"abs": 0.5, "rel": 0.2, "rmse": 1.0, "delta1": 50.0},
}
BETTER = {
    "semseg": {"miou": 42.0, "pixel_accuracy": 80.0},
    "depth": {"abs": 0.4, "rel": 0.2, "rmse": 0.9, "delta1": 10.0},
}


def test_over_the_primary_metrics():
    assert task_gains(BETTER, BASE) == pytest.approx({"semseg": 5.0, "depth": 20.0})
    assert delta_m(BETTER, BASE) == pytest.approx(12.5)


def test_over_the_mean_of_the_metrics_leaves_the_thresholds_out():
    assert task_gains(BETTER, BASE, over="mean") == pytest.approx({"semseg": 2.5, "depth": 10.0})
    assert delta_m(BETTER, BASE, over="mean") == pytest.approx(6.25)


def test_a_network_gains_nothing_over_itself():
    assert delta_m(BASE, BASE) == delta_m(BASE, BASE, over="mean") == 0


def test_what_is_better_one_way_is_worse_the_other_way():
    assert delta_m(BETTER, BASE) > 0 > delta_m(BASE, BETTER)


@pytest.mark.parametrize(
    ("metrics", "baseline", "message"),
    [
        (BETTER, {"depth": BASE["depth"]}, "the baseline has no task semseg"),
        ({"depth": BASE["depth"]}, BASE, "the evaluation has no task semseg"),
        ({}, {}, "no task to compare"),
        ({"speed": {}}, {"speed": {}}, "'speed' is unknown"),
        ({"depth": {"rel": 1.0}}, {"depth": BASE["depth"]}, "abs is None"),
        ({"depth": {"abs": float("nan")}}, {"depth": BASE["depth"]}, "abs is nan"),
        ({"depth": BASE["depth"]}, {"depth": {"abs": 0.0}}, "baseline's abs is 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(metrics, baseline, message):
    with pytest.raises(DataError, match=message):
        delta_m(metrics, baseline)


def test_an_unknown_way_to_choose_is_refused():
    with pytest.raises(SpecError, match="primary, mean"):
        delta_m(BETTER, BASE, over="median")
