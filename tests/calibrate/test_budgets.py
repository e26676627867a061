"""Budgets: what is read, what is refused, and what counts as held."""

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from emadeploy.calibrate.budgets import Budget, Budgets, in_words, parse_budgets, verdict_table
from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.tasks import KINDS
from emadeploy.evaluate.metrics import METRICS

THREE = ("semseg", "depth", "normals")
FLOAT = {
    "semseg": {"miou": 40.0, "pixel_accuracy": 70.0},
    "depth": {"abs": 0.3, "rel": 0.2},
    "normals": {"mean": 20.0},
}


def with_values(semseg: float = 40.0, depth: float = 0.2, normals: float = 20.0) -> dict[str, dict[str, float]]:
    return {"semseg": {"miou": semseg}, "depth": {"rel": depth}, "normals": {"mean": normals}}


def test_the_zoo_has_the_default_budgets():
    assert str(parse_budgets(None, THREE)) == "semseg=1.0,depth=2.0%,normals=0.5deg"


def test_what_is_named_replaces_the_default_and_keeps_the_order_of_the_model():
    budgets = parse_budgets(" normals = 1.5 deg , semseg=.25", THREE)
    assert str(budgets) == "semseg=0.25,depth=2.0%,normals=1.5deg"
    assert budgets.tasks == THREE
    assert [b.relative for b in budgets.items] == [False, True, False]


def test_a_recipe_sets_the_defaults():
    assert str(parse_budgets("depth=3%", THREE, {"semseg": 2, "depth": 9.0})) == "semseg=2,depth=3.0%,normals=0.5deg"


def test_every_kind_of_task_has_a_budget_on_one_of_its_metrics():
    for task in KINDS:
        budget = Budget.of(task)
        assert budget.metric in [metric.name for metric in METRICS[task]]
        assert parse_budgets(str(budget), (task,)) == Budgets((budget,))


@given(st.dictionaries(st.sampled_from(list(KINDS)), st.floats(0, 1e6), min_size=1))
def test_what_is_written_reads_back_to_the_same(allowed: dict[str, float]):
    budgets = Budgets(tuple(Budget.of(task, value) for task, value in allowed.items()))
    assert parse_budgets(str(budgets), budgets.tasks) == budgets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "budget '' is not TASK=NUMBER"),
        ("semseg=1.0,", "budget '' is not TASK=NUMBER"),
        ("semseg", "accepted are e.g. semseg=1.0,depth=2.0%,normals=0.5deg"),
        ("semseg=-1", "is not TASK=NUMBER"),
        ("semseg=nan", "is not TASK=NUMBER"),
        ("semseg=1e999", "not a finite number"),
        ("semseg=1%", "is in %; semseg takes points of miou, e.g. semseg=1.0"),
        ("depth=2", "is without a unit; depth takes percent of rel, e.g. depth=2.0%"),
        ("normals=0.5", "is without a unit; normals takes degrees of mean, e.g. normals=0.5deg"),
        ("normals=0.5rad", "is not TASK=NUMBER"),
        ("edge=1", "no task 'edge' is exported; accepted are e.g. semseg=1.0"),
        ("semseg=1,semseg=2", "name semseg twice"),
    ],
)
def test_what_does_not_make_sense_is_refused(text: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_budgets(text, THREE)
    assert message in str(caught.value)


def test_a_kind_without_a_budget_is_refused():
    with pytest.raises(SpecError, match="task 'flow' is unknown; known: semseg"):
        Budget.of("flow")


def test_drops_are_in_the_units_of_the_budgets():
    drops = parse_budgets(None, THREE).drops(FLOAT, with_values(38.5, 0.21, 19.0))
    assert drops == pytest.approx({"semseg": 1.5, "depth": 5.0, "normals": -1.0})


def test_over_is_what_exceeds_its_budget_and_no_gain_does():
    budgets = parse_budgets(None, THREE)
    assert budgets.over(FLOAT, with_values(39.5, 0.203, 20.25)) == ()
    assert budgets.over(FLOAT, with_values(90.0, 0.01, 1.0)) == ()
    assert budgets.over(FLOAT, with_values(38.9, 0.203, 20.75)) == ("semseg", "normals")


def test_a_drop_that_is_just_what_is_allowed_is_held():
    assert parse_budgets(None, THREE).over(FLOAT, with_values(39.0, 0.2 * 1.02, 20.5)) == ()
    assert parse_budgets("semseg=0", ("semseg",)).over(FLOAT, with_values()) == ()


@pytest.mark.parametrize(
    "broken", [{}, {"semseg": {}}, {"semseg": {"miou": math.nan}}, {"semseg": {"miou": -math.inf}}]
)
def test_a_metric_without_a_value_is_over_every_budget(broken: dict):
    budgets = parse_budgets("semseg=1000000", ("semseg",))
    (verdict,) = budgets.judge(FLOAT, broken)
    assert (verdict.held, verdict.drop, verdict.obtained) == (False, math.inf, None)
    assert budgets.over(FLOAT, broken) == ("semseg",)
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["drop"] is None
    assert "40 -> nothing" in str(verdict)


def test_data_without_truth_for_a_budget_is_refused():
    with pytest.raises(
        CalibrationError, match=r"no truth for normals, whose budget is normals=0\.5deg; it judges semseg"
    ):
        parse_budgets(None, THREE).drops({"semseg": {"miou": 40.0}, "depth": {"rel": 0.2}}, with_values())


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_reference_that_cannot_be_compared_with_is_refused(value: float):
    with pytest.raises(CalibrationError, match="no drop can be measured"):
        parse_budgets(None, ("depth",)).drops({"depth": {"rel": value}}, with_values())


def test_the_table_shows_every_budget_and_what_became_of_it():
    verdicts = parse_budgets(None, THREE).judge(FLOAT, with_values(38.5, 0.2, 20.25))
    shown = io.StringIO()
    Console(width=120, file=shown).print(verdict_table(verdicts, "plain int8"))
    lines = {line.split()[1]: line for line in shown.getvalue().splitlines() if line.startswith("│")}
    assert [word in lines["semseg"] for word in ("miou", "38.5", "+1.5", "points", "over")] == [True] * 5
    assert [word in lines["normals"] for word in ("mean", "20.25", "+0.25", "deg", "held")] == [True] * 5
    assert in_words(verdicts).startswith("semseg miou 40 -> 38.5, drop 1.5 of 1 points: OVER; depth rel")


@given(st.floats(0, 10), st.floats(-100, 100))
def test_excess_is_above_one_just_where_a_budget_is_not_held(allowed: float, lost: float):
    budgets = Budgets((Budget.of("semseg", allowed),))
    (verdict,) = budgets.judge(FLOAT, {"semseg": {"miou": 40.0 - lost}})
    assert (verdict.excess > 1) == (not verdict.held)
