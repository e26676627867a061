"""Where the harm is looked for, and the order in which it is put right."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.calibrate.ranking import Candidate, find_harm, rank, shares, unit_shares
from emadeploy.calibrate.units import Unit, nodes_of


def unit(name: str, section: str = "s", cost: float = 1.0) -> Unit:
    return Unit(name, (name,), section, cost)


def candidate(name: str, cost: float = 1.0, **error: float) -> Candidate:
    return Candidate((unit(name, cost=cost),), error)


def probe_of(units: tuple[Unit, ...], harm: Mapping[str, float], asked: list[frozenset[str]] | None = None):
    def probe(keep: frozenset[str]) -> dict[str, float]:
        rounded = nodes_of(units) - keep
        if asked is not None:
            asked.append(rounded)
        return {"depth": math.sqrt(sum(harm.get(name, 0.0) for name in rounded))}

    return probe


def test_sections_are_probed_first_and_only_the_harmful_one_is_looked_into():
    units = tuple(unit(f"{section}{index}", section) for section in "abc" for index in range(4))
    asked: list[frozenset[str]] = []
    ticks: list[int] = []
    found = find_harm(units, probe_of(units, {"b2": 1.0}, asked), {"depth": 1.0}, 64, lambda: ticks.append(1))
    assert asked[:3] == [frozenset(f"{s}{i}" for i in range(4)) for s in "abc"]
    assert asked[3:] == [{"b0"}, {"b1"}, {"b2"}, {"b3"}]
    assert [[u.name for u in c.units] for c in found][1:5] == [["b0"], ["b1"], ["b2"], ["b3"]]
    assert len(ticks) == 7
    assert shares(found, "depth") == [0, 0, 0, 1, 0, 0]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(4, 100))
def test_candidates_cover_every_unit_once_within_the_probes(harm: list[float], probes: int):
    units = tuple(unit(f"u{index}", f"s{index // 10}") for index in range(len(harm)))
    asked: list[frozenset[str]] = []
    probe = probe_of(units, {f"u{index}": value for index, value in enumerate(harm)}, asked)
    found = find_harm(units, probe, {"depth": 1.0}, probes, lambda: None)
    assert [u for c in found for u in c.units] == list(units)
    assert len(asked) <= probes
    total = sum(row["depth"] for row in unit_shares(found, ["depth"]).values())
    assert total == pytest.approx(1.0) or (total == 0.0 and max(harm) < 1e-150)


def test_more_harm_per_cost_comes_first_and_what_suffices_is_counted():
    candidates = [
        candidate("cheap", 1.0, depth=2.0),
        candidate("dear", 10.0, depth=3.0),
        candidate("harmless", 0.1, depth=0.0),
    ]
    order, enough = rank(candidates, {"depth": 4 / 13})
    assert [c.units[0].name for c in order] == ["cheap", "dear", "harmless"]
    assert enough == 1
    assert rank(candidates, {"depth": 0.5})[1] == 2


def test_every_task_that_is_over_is_served_before_one_is_served_twice():
    candidates = [
        candidate("s1", depth=0.0, semseg=3.0),
        candidate("s2", depth=0.0, semseg=3.0),
        candidate("d", depth=2.0, semseg=0.0),
        candidate("d2", depth=1.0, semseg=0.0),
    ]
    order, enough = rank(candidates, {"depth": 0.8, "semseg": 0.5})
    assert {c.units[0].name for c in order[:2]} == {"s1", "d"}
    assert enough == 2


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_an_error_that_is_not_finite_is_the_worst(error: float):
    candidates = [candidate("a", depth=0.5), candidate("b", depth=error)]
    assert rank(candidates, {"depth": 0.5})[0][0].units[0].name == "b"


def test_harm_inside_a_candidate_goes_with_the_cost():
    pair = Candidate((unit("a", cost=1.0), unit("b", cost=3.0)), {"depth": 1.0})
    assert unit_shares([pair, candidate("c", depth=1.0)], ["depth"]) == {
        "a": {"depth": 0.125},
        "b": {"depth": 0.375},
        "c": {"depth": 0.5},
    }
