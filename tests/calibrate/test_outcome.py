"""What a search found, judged again in what was built for it."""

import pytest

from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.outcome import Outcome, Trial
from emadeploy.calibrate.units import Unit
from emadeploy.contract.errors import CalibrationError

FLOAT = {"semseg": {"miou": 50.0}, "depth": {"rel": 0.1}}
BUDGETS = parse_budgets(None, ("semseg", "depth"))  # 1 point, 2 %
TRIED = {"semseg": {"miou": 49.5}, "depth": {"rel": 0.101}}
KEPT = Unit("heads.depth.0", ("heads.depth.0.conv1/Conv", "heads.depth.0.conv2/Conv"), "heads.depth", 2.0)


@pytest.fixture
def outcome() -> Outcome:
    """Return what a search found: one unit kept, tried out once after plain int8."""
    plain = {"semseg": {"miou": 45.0}, "depth": {"rel": 0.11}}
    history = (
        Trial((), 0.0, BUDGETS.judge(FLOAT, plain), plain),
        Trial((KEPT.name,), 0.25, BUDGETS.judge(FLOAT, TRIED), TRIED),
    )
    return Outcome(BUDGETS, (KEPT,), history[1], history, probes=7)


def test_what_was_built_is_what_counts(outcome):
    built = {"semseg": {"miou": 49.25}, "depth": {"rel": 0.1015}}
    confirmed = outcome.confirmed(FLOAT, built)
    assert confirmed.metrics == built
    assert [row["drop"] for row in confirmed.to_dict()["tasks"]] == pytest.approx([0.75, 1.5])
    assert [row["obtained"] for row in confirmed.to_dict()["tasks"]] == [49.25, 0.1015]
    # How it was found stays as it was.
    assert (confirmed.nodes, confirmed.trial.share, confirmed.probes) == (frozenset(KEPT.nodes), 0.25, 7)
    assert confirmed.history == outcome.history
    assert outcome.metrics == TRIED


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({"semseg": {"miou": 48.9}, "depth": {"rel": 0.1}}, "semseg miou 50 -> 48.9, drop 1.1 of 1 points: OVER"),
        ({"semseg": {"miou": 50.0}, "depth": {"rel": 0.1021}}, "depth rel 0.1 -> 0.1021, drop 2.1 of 2 %: OVER"),
        ({"semseg": {"miou": float("nan")}, "depth": {"rel": 0.1}}, "semseg miou 50 -> nothing, drop inf of 1 points"),
    ],
)
def test_what_was_built_and_is_over_a_budget_is_refused(outcome, built, said):
    with pytest.raises(CalibrationError) as caught:
        outcome.confirmed(FLOAT, built)
    message = str(caught.value)
    assert message.startswith("the budgets semseg=1.0,depth=2.0% held when tried out (semseg miou 50 -> 49.5, drop 0.5")
    assert f"do not in what was built: {said}" in message.replace(
        "semseg miou 50 -> 50, drop 0 of 1 points: held; ", ""
    )
    assert "Allow more with --max-drop" in message
