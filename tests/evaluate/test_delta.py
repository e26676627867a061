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


def test_odsf_stands_for_edges_where_both_have_it():
    both, f1 = {"odsf": 60.0, "f1": 50.0}, {"f1": 25.0}
    for over in ("primary", "mean"):
        assert delta_m({"edge": both}, {"edge": {"odsf": 50.0, "f1": 40.0}}, over) == pytest.approx(20)
        assert delta_m({"edge": both}, {"edge": f1}, over) == pytest.approx(100)
        assert delta_m({"edge": f1}, {"edge": both}, over) == pytest.approx(-50)
    with pytest.raises(DataError, match="edge: f1 is None"):
        delta_m({"edge": {"odsf": 60.0}}, {"edge": f1})


def test_metrics_that_were_added_later_leave_the_mean_as_it_was():
    row = {"abs": 0.4, "rel": 0.2, "rmse": 0.9}
    later = {**row, "log_rmse": 0.1, "delta1": 90.0}
    assert delta_m({"depth": later}, {"depth": BASE["depth"]}, "mean") == pytest.approx(
        delta_m({"depth": row}, {"depth": BASE["depth"]}, "mean")
    )


@pytest.mark.parametrize(
    ("metrics", "baseline", "message"),
    [
        (
            BETTER,
            {"depth": BASE["depth"]},
            "the baseline has no task semseg: the evaluation has semseg, depth, the baseline depth; .* the same tasks",
        ),
        ({"depth": BASE["depth"]}, BASE, "the evaluation has no task semseg: the evaluation has depth, the baseline"),
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
