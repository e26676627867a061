"""The search for what stays in higher precision, on simulated networks whose harms are known."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.outcome import BudgetError, Outcome
from emadeploy.calibrate.search import keep_within
from emadeploy.calibrate.units import Unit
from emadeploy.contract.errors import CalibrationError, SpecError

FLOAT = {"semseg": {"miou": 50.0}, "depth": {"rel": 0.1}}
BUDGETS = parse_budgets(None, ("semseg", "depth"))  # 1 point, 2 %


@dataclass
class Network:
    """Every unit in int8 costs a drop per task, in the budgets' units; pairs of them cost more. ``floor``: in any case.

    The probe sees the square root of what the units alone cost, as rounding errors add up, times ``skew`` per unit.
    """

    harm: Mapping[str, tuple[float, float]]
    cost: Mapping[str, float] = field(default_factory=dict)
    together: Mapping[tuple[str, str], float] = field(default_factory=dict)
    floor: float = 0.0
    skew: Mapping[str, float] = field(default_factory=dict)
    section_size: int = 4

    def __post_init__(self) -> None:
        self.units = tuple(
            Unit(name, (f"{name}.a", f"{name}.b"), f"section{index // self.section_size}", self.cost.get(name, 1.0))
            for index, name in enumerate(self.harm)
        )
        self.measured: list[frozenset[str]] = []
        self.probed: list[frozenset[str]] = []

    def drops(self, keep: frozenset[str]) -> tuple[float, float]:
        rounded = {unit.name for unit in self.units if not keep.issuperset(unit.nodes)}
        pairs = sum(harm for pair, harm in self.together.items() if rounded.issuperset(pair))
        semseg, depth = (sum(self.harm[name][task] for name in rounded) for task in range(2))
        return semseg + pairs + self.floor, depth + pairs + self.floor

    def measure(self, keep: frozenset[str]) -> dict[str, dict[str, float]]:
        self.measured.append(keep)
        semseg, depth = self.drops(keep)
        return {"semseg": {"miou": 50 - semseg}, "depth": {"rel": 0.1 * (1 + depth / 100)}}

    def probe(self, keep: frozenset[str]) -> dict[str, float]:
        self.probed.append(keep)
        rounded = [unit.name for unit in self.units if not keep.issuperset(unit.nodes)]
        squares = [sum(self.harm[name][task] * self.skew.get(name, 1.0) for name in rounded) for task in range(2)]
        return dict(zip(("semseg", "depth"), np.sqrt(squares).tolist(), strict=True))

    def search(self, evaluations: int = 30, **options: int) -> Outcome:
        return keep_within(self.units, self.measure, self.probe, BUDGETS, FLOAT, evaluations=evaluations, **options)


def even(count: int, semseg: float = 0.0, depth: float = 0.0) -> dict[str, tuple[float, float]]:
    return {f"u{index}": (semseg, depth) for index in range(count)}


def names(outcome: Outcome) -> set[str]:
    return {unit.name for unit in outcome.kept}


def attempt(network: Network, evaluations: int, **options: int) -> tuple[Outcome | None, BudgetError | None]:
    try:
        return network.search(evaluations, **options), None
    except BudgetError as error:
        return None, error


def test_plain_int8_that_holds_takes_one_evaluation_and_no_probe():
    network = Network(even(5, 0.1, 0.1))
    outcome = network.search()
    assert (outcome.kept, outcome.evaluations, outcome.probes) == ((), 1, 0)
    assert (network.measured, network.probed) == ([frozenset()], [])
    assert outcome.summary() == "every budget holds in plain int8 (1 evaluation)"


def test_the_one_layer_that_does_the_harm_is_found_among_a_hundred():
    network = Network({**even(100, 0.001, 0.001), "u37": (5.0, 0.0)})
    outcome = network.search(evaluations=12)
    assert names(outcome) == {"u37"}
    assert outcome.nodes == {"u37.a", "u37.b"}
    assert outcome.metrics["semseg"]["miou"] > 49
    assert outcome.evaluations <= 12


def test_each_task_that_is_over_is_put_right():
    network = Network({**even(40), "u3": (4.0, 0.0), "u30": (0.0, 9.0)})
    assert names(network.search()) == {"u3", "u30"}


def test_a_cheap_layer_goes_before_one_that_does_as_much_harm_and_costs_more():
    network = Network({**even(20), "u2": (0.9, 0), "u12": (0.9, 0)}, cost={"u2": 50.0})
    assert names(network.search()) == {"u12"}


def test_what_was_kept_too_much_is_given_back():
    # The probe thinks that u0 to u9 do ten times the harm that they do: they are kept first, and needlessly.
    network = Network(
        {**even(10, 0.01), **{f"u{i}": (0.4, 0.0) for i in range(10, 14)}}, skew=dict.fromkeys(even(10), 40)
    )
    assert names(network.search()) < {"u10", "u11", "u12", "u13"}


def test_harm_that_only_two_layers_do_together_is_measured_where_probes_cannot_see_it():
    network = Network(even(12, 0.01, 0.01), together={("u4", "u9"): 30.0})
    assert len(names(network.search()) & {"u4", "u9"}) >= 1


def test_a_last_evaluation_is_kept_for_what_holds_most_likely():
    network = Network(even(64, 0.5, 0.5))
    outcome = network.search(evaluations=2)
    assert outcome.trial.held
    assert len(outcome.kept) == 63
    assert len(network.search(evaluations=30).kept) == 62  # two may stay: 2 * 0.5 points


def test_budgets_that_only_hold_in_float_are_an_error_with_the_table():
    network = Network(even(6, 3.0, 0.0))
    with pytest.raises(BudgetError, match=r"hold only with nothing left in int8") as caught:
        network.search()
    assert isinstance(caught.value, CalibrationError)
    assert "semseg miou 50 -> 47, drop 3 of 1 points: OVER; depth rel" in str(caught.value)
    assert "with 5 of 6 units in higher precision (83.3 % of the cost)" in str(caught.value)
    assert [verdict.held for verdict in caught.value.verdicts] == [False, True]
    shown = io.StringIO()
    Console(file=shown, width=100).print(caught.value.table())
    assert "over" in shown.getvalue()


def test_budgets_that_do_not_hold_in_higher_precision_either_are_told_apart():
    with pytest.raises(BudgetError, match="not even hold with every layer in higher precision"):
        Network(even(6, 0.1), floor=5.0).search()


def test_evaluations_that_run_out_are_an_error():
    network = Network(even(6, 3.0))
    with pytest.raises(BudgetError, match="after 1 evaluation none is left") as caught:
        network.search(evaluations=1)
    assert len(caught.value.history) == len(network.measured) == 1
    assert network.probed == [], "what cannot be tried needs no probe"
    with pytest.raises(BudgetError, match="after 2 evaluations none is left"):
        network.search(evaluations=2)
    assert network.probed


def test_an_int8_network_without_any_value_is_put_right():
    network = Network({**even(10), "u1": (math.nan, 0.0)})
    network.probe = lambda keep: {"semseg": 0.1 if "u1.a" in keep else math.nan, "depth": 0.1}
    assert names(network.search()) == {"u1"}


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        ((), {}, "no unit"),
        ((Unit("a", ("n",), "s", 1), Unit("a", ("m",), "s", 1)), {}, "share a name"),
        ((Unit("a", ("n",), "s", 1), Unit("b", ("n",), "s", 1)), {}, "share a node"),
        ((Unit("a", ("n",), "s", 0),), {}, "cost 0"),
        ((Unit("a", (), "s", 1),), {}, "no node"),
        ((Unit("a", ("n",), "s", 1),), {"evaluations": 0}, "0 evaluations are too few"),
        ((Unit("a", ("n",), "s", 1), Unit("b", ("m",), "t", 1)), {"probes": 1}, "1 probes are too few for 2 sections"),
    ],
)
def test_what_cannot_be_searched_is_refused(units: tuple[Unit, ...], options: dict[str, int], message: str):
    network = Network(even(1, 5.0))
    with pytest.raises(SpecError, match=message):
        keep_within(units, network.measure, network.probe, BUDGETS, FLOAT, **options)


def test_the_record_and_the_line_say_what_was_kept():
    network = Network({**even(8, 0.01), "u2": (5.0, 0.0)}, cost={"u2": 3.0})
    outcome = network.search()
    record = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert record["budgets"] == "semseg=1.0,depth=2.0%"
    assert record["kept"] == [{"unit": "u2", "section": "section0", "nodes": ["u2.a", "u2.b"]}]
    assert record["kept_share"] == pytest.approx(0.3)
    assert len(record["history"]) == record["evaluations"] == len(network.measured)
    assert record["history"][0]["drops"]["semseg"] == pytest.approx(5.07)
    assert [row["held"] for row in record["tasks"]] == [True, True]
    assert "1 unit in higher precision (1 in section0), 30.0 % of the cost" in outcome.summary()


def test_the_progress_counts_every_measurement_within_what_there_can_be():
    seen: list[tuple[int, int]] = []
    network = Network({**even(20, 0.01), "u2": (5.0, 0.0)})
    keep_within(
        network.units,
        network.measure,
        network.probe,
        BUDGETS,
        FLOAT,
        evaluations=9,
        probes=16,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 25) for done in range(1, len(network.measured) + len(network.probed) + 1)]


harms = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=24)


@given(harms, st.lists(st.floats(0.1, 10), min_size=24, max_size=24), st.integers(2, 30), st.integers(6, 60))
def test_harms_that_add_up_are_put_right_whenever_anything_may_stay_in_int8(
    harm: list[tuple[float, float]], cost: list[float], evaluations: int, probes: int
):
    units = {f"u{index}": pair for index, pair in enumerate(harm)}
    network = Network(units, dict(zip(units, cost, strict=False)))
    # A unit that may stay alone, by a margin for rounding and for what a probe of several units cannot tell apart.
    feasible = len(units) == 1 and max(harm[0][0], harm[0][1] / 2) < 0.99
    feasible |= max(sum(h[0] for h in harm), sum(h[1] for h in harm) / 2) < 0.99
    # With probes for every unit, the least harmful one is known.
    known = probes >= 48 and all(min(h) > 0.05 for h in harm)
    feasible |= known and min(max(h[0], h[1] / 2) for h in harm) < 0.99 and len(units) > 1
    outcome, error = attempt(network, evaluations, probes=probes)
    if error is not None:
        assert not feasible
        assert not any(trial.held for trial in error.history if len(trial.keep) < len(units))
    if outcome is not None:
        semseg, depth = network.drops(outcome.nodes)
        assert max(semseg - 1, depth - 2) <= 1e-8
        assert frozenset(outcome.nodes) in network.measured
    assert len(network.measured) <= evaluations
    assert len(network.probed) <= probes


@given(
    harms,
    st.dictionaries(st.tuples(st.sampled_from(range(24)), st.sampled_from(range(24))), st.floats(0, 5), max_size=8),
    st.lists(st.floats(0.0, 20), min_size=24, max_size=24),
    st.integers(1, 30),
)
def test_whatever_the_harms_and_however_wrong_the_probes_no_outcome_is_over_a_budget(
    harm: list[tuple[float, float]], pairs: dict[tuple[int, int], float], skew: list[float], evaluations: int
):
    units = {f"u{index}": pair for index, pair in enumerate(harm)}
    together = {(f"u{a}", f"u{b}"): extra for (a, b), extra in pairs.items() if max(a, b) < len(units)}
    wrong = dict(zip(units, skew, strict=False))
    network, again = Network(units, together=together, skew=wrong), Network(units, together=together, skew=wrong)
    outcome, error = attempt(network, evaluations)
    if error is not None:
        assert not error.nearest.held
    if outcome is not None:
        semseg, depth = network.drops(outcome.nodes)
        assert max(semseg - 1, depth - 2) <= 1e-8
        assert outcome.to_dict() == again.search(evaluations).to_dict()
        assert again.measured == network.measured
    assert len(network.measured) <= evaluations


@given(harms, st.integers(100, 160))
def test_with_evaluations_enough_nothing_is_kept_that_could_be_given_back(
    harm: list[tuple[float, float]], evaluations: int
):
    units = {f"u{index}": pair for index, pair in enumerate(harm)}
    network = Network(units)
    outcome, _ = attempt(network, evaluations)
    for unit in outcome.kept if outcome else ():
        semseg, depth = network.drops(outcome.nodes - set(unit.nodes))
        assert max(semseg - 1, depth - 2) > -1e-8
