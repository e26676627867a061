"""Which units do the harm: measured section by section, then inside the worst ones, and put in order of harm per cost.

Harm is measured with everything in higher precision but the units in question. The rounding errors of many layers are
near to independent, so their squares add up: the share of a task's harm that a candidate does is its squared error
over the sum of all of them. That only ranks and predicts; what holds is decided by measuring (`search`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from emadeploy.calibrate.units import Probe, Unit, nodes_of
from emadeploy.contract.plain import require

#: Parts that a candidate is split into.
_PARTS = 4
#: A candidate with less than this share of the harm is not looked into.
_NEGLIGIBLE = 0.01
#: What stands for an error that is not finite.
_HUGE = 1e6


@dataclass(frozen=True)
class Candidate:
    """Neighbouring units and their ``error`` by task: measured, with them alone in int8."""

    units: tuple[Unit, ...]
    error: Mapping[str, float]

    @property
    def cost(self) -> float:
        """The cost of its units."""
        return sum(unit.cost for unit in self.units)

    def variance(self, task: str) -> float:
        """The squared error of ``task``, finite."""
        error = self.error[task]
        return error**2 if math.isfinite(error) and abs(error) < _HUGE else _HUGE**2


def find_harm(
    units: Sequence[Unit], probe: Probe, weights: Mapping[str, float], probes: int, tick: Callable[[], None]
) -> list[Candidate]:
    """Return the candidates that ``units`` fall into, in order, after at most ``probes`` calls of ``probe``.

    They begin as the sections; as long as calls remain, the most harmful is split, by the ``weights`` of the tasks.
    ``tick`` is called after each call. Raises SpecError where ``probes`` are fewer than the sections.
    """
    everything = nodes_of(units)
    spent = 0

    def measured(group: Sequence[Unit]) -> Candidate:
        nonlocal spent
        spent += 1
        candidate = Candidate(tuple(group), dict(probe(everything - nodes_of(group))))
        tick()
        return candidate

    sections: dict[str, list[Unit]] = {}
    for unit in units:
        sections.setdefault(unit.section, []).append(unit)
    require(probes >= len(sections), f"{probes} probes are too few for {len(sections)} sections")
    candidates = [measured(group) for group in sections.values()]
    while True:
        harm = _weighted(candidates, weights)
        divisible = [index for index, candidate in enumerate(candidates) if len(candidate.units) > 1]
        worst = max(divisible, key=lambda index: harm[index], default=None)
        if worst is None or harm[worst] < _NEGLIGIBLE:
            return candidates
        parts = _split(candidates[worst].units)
        if spent + len(parts) > probes:
            return candidates
        candidates[worst : worst + 1] = [measured(part) for part in parts]


def shares(candidates: Sequence[Candidate], task: str) -> list[float]:
    """Return the share of each candidate in the harm of ``task``: they add up to 1, or are all 0."""
    variances = [candidate.variance(task) for candidate in candidates]
    total = sum(variances)
    return [variance / total if total else 0.0 for variance in variances]


def unit_shares(candidates: Sequence[Candidate], tasks: Collection[str]) -> dict[str, dict[str, float]]:
    """Return the share of each unit, by name, in the harm of each task; inside a candidate it goes with the cost."""
    found: dict[str, dict[str, float]] = {unit.name: {} for candidate in candidates for unit in candidate.units}
    for task in tasks:
        for candidate, share in zip(candidates, shares(candidates, task), strict=True):
            for unit in candidate.units:
                found[unit.name][task] = share * unit.cost / candidate.cost
    return found


def rank(candidates: Sequence[Candidate], needs: Mapping[str, float]) -> tuple[list[Candidate], int]:
    """Return the candidates by harm that is put right per cost, and how many of them are predicted to suffice.

    ``needs``: by task that is over its budget, the share of the candidates' harm that has to go, above 0 and at most 1.
    A candidate counts no more than what is still needed of its task; after that, by all that it does.
    """
    share = {task: shares(candidates, task) for task in needs}

    def worth(index: int, left: Mapping[str, float]) -> tuple[float, float, int]:
        gain = sum(min(share[task][index], left[task]) / need for task, need in needs.items())
        return gain / candidates[index].cost, -candidates[index].cost, -index

    left, open_ = dict(needs), set(range(len(candidates)))
    order: list[int] = []
    enough = 0
    while open_:
        best = max(open_, key=partial(worth, left=left))
        open_.remove(best)
        order.append(best)
        left = {task: rest - share[task][best] for task, rest in left.items()}
        if not enough and all(rest <= 1e-9 for rest in left.values()):
            enough = len(order)
            left = dict.fromkeys(left, math.inf)
        left = {task: max(rest, 0.0) for task, rest in left.items()}
    return [candidates[index] for index in order], enough or len(order)


def _weighted(candidates: Sequence[Candidate], weights: Mapping[str, float]) -> list[float]:
    """Return the share of each candidate in the harm of all tasks."""
    total = sum(weights.values())
    share = {task: shares(candidates, task) for task in weights}
    return [sum(w * share[task][i] for task, w in weights.items()) / total for i in range(len(candidates))]


def _split(units: tuple[Unit, ...]) -> list[tuple[Unit, ...]]:
    edges = [round(part * len(units) / _PARTS) for part in range(_PARTS + 1)]
    return [units[first:last] for first, last in pairwise(edges) if first < last]
