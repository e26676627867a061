"""What stays in higher precision so that every budget holds, found with few evaluations.

1. Plain int8 is evaluated. If every budget holds, that is all.
2. The units that do the harm are found with cheap probes, and ranked by harm per cost (`ranking`).
3. Growing: units go back to higher precision in that order, as many as are predicted to suffice, then at least twice as
   many, ranked anew for the tasks that are still over, until all budgets hold. The last evaluation, or the last resort,
   is all but the least harmful unit.
4. Shrinking: with the evaluations that remain, units are given back to int8 in halves from the end of the order, which
   is a bisection; then those that cost most, one by one.

Only a set that was evaluated and held is ever an outcome. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence

from emadeploy.calibrate.budgets import Budgets
from emadeploy.calibrate.outcome import BudgetError, Outcome, Trial
from emadeploy.calibrate.ranking import find_harm, rank, unit_shares
from emadeploy.calibrate.units import Measure, Probe, Progress, Unit, check_units, nodes_of
from emadeploy.contract.plain import require
from emadeploy.evaluate.metrics import TaskMetrics

EVALUATIONS = 20
#: Enough for the sections, and to come from the worst of them down to its worst layer.
PROBES = 40
#: The most of a task's harm that a step plans to put right: predictions of more than this are worth little.
_MOST = 0.9
_LEAST = 1e-6
#: Giving back a unit that costs less than this share of all is not worth an evaluation.
_WORTHWHILE = 0.01
#: What stands for a drop without end: it still has to be multiplied.
_HUGE = 1e9


def keep_within(
    units: Sequence[Unit],
    measure: Measure,
    probe: Probe,
    budgets: Budgets,
    reference: TaskMetrics,
    *,
    evaluations: int = EVALUATIONS,
    probes: int = PROBES,
    progress: Progress | None = None,
) -> Outcome:
    """Return the units that stay in higher precision so that ``budgets`` hold against ``reference``, the float metrics.

    ``measure`` is called at most ``evaluations`` times, with the nodes to keep; ``probe`` at most ``probes`` times, and
    only where plain int8 is over a budget and evaluations remain. More evaluations give a cheaper outcome.

    Raises BudgetError, a CalibrationError with the table, where the budgets cannot hold with anything left in int8;
    SpecError for units that overlap, and numbers of evaluations or probes that are too small.
    """
    check_units(units)
    require(evaluations >= 1, f"{evaluations} evaluations are too few, expected at least 1")
    search = _Search(units, measure, budgets, reference, evaluations, probes, progress)
    plain = search.evaluate(())
    if plain.held:
        return search.outcome((), plain)
    if not search.left:  # whatever probes would say, nothing could be tried
        raise search.spent()
    search.find_harm(plain, probe)
    return search.outcome(*search.shrink(*search.grow(plain)))


class _Search:
    """The evaluations so far, and what they tell."""

    def __init__(
        self,
        units: Sequence[Unit],
        measure: Measure,
        budgets: Budgets,
        reference: TaskMetrics,
        evaluations: int,
        probes: int,
        progress: Progress | None,
    ) -> None:
        self.units, self.measure, self.budgets, self.reference = tuple(units), measure, budgets, reference
        self.evaluations, self.probes, self.progress = evaluations, probes, progress
        self.cost = sum(unit.cost for unit in units)
        self.trials: list[Trial] = []
        self.failed: list[frozenset[str]] = []
        self.probed = 0

    @property
    def left(self) -> int:
        """Evaluations that remain."""
        return self.evaluations - len(self.trials)

    def evaluate(self, keep: Sequence[Unit]) -> Trial:
        """Measure with the units ``keep`` in higher precision."""
        assert self.left > 0
        metrics = self.measure(nodes_of(keep))
        names = frozenset(unit.name for unit in keep)
        trial = Trial(
            tuple(unit.name for unit in self.units if unit.name in names),
            sum(unit.cost for unit in keep) / self.cost,
            self.budgets.judge(self.reference, metrics),
            {task: dict(row) for task, row in metrics.items()},
        )
        self.trials.append(trial)
        if not trial.held:
            self.failed.append(names)
        self.tick()
        return trial

    def tick(self) -> None:
        """Report how far the search is."""
        if self.progress is not None:
            self.progress(len(self.trials) + self.probed, self.evaluations + self.probes)

    def find_harm(self, plain: Trial, probe: Probe) -> None:
        """Probe, and keep what that says of every unit."""

        def tick() -> None:
            self.probed += 1
            self.tick()

        self.candidates = find_harm(self.units, probe, _needs(plain), self.probes, tick)
        share = unit_shares(self.candidates, self.budgets.tasks)
        drops = {v.budget.task: min(max(v.drop, 0.0), _HUGE) for v in plain.verdicts}
        #: By name of a unit, the drop of every task that it is predicted to cause in int8.
        self.predicted = {
            name: {task: part * drops[task] for task, part in parts.items()} for name, parts in share.items()
        }

    def grow(self, trial: Trial) -> tuple[list[Unit], Trial]:
        """Return units that hold the budgets, the most valuable first, and their trial. Raises BudgetError."""
        kept: list[Unit] = []
        rest = list(self.candidates)
        steps = 0
        while not trial.held:
            order, enough = rank(rest, _needs(trial))
            count = max(enough, steps)
            if self.left < 2 or count >= len(rest):
                return self.last_resort([*kept, *(unit for candidate in order for unit in candidate.units)])
            kept += [unit for candidate in order[:count] for unit in candidate.units]
            rest, steps = order[count:], steps + count
            trial = self.evaluate(kept)
        return kept, trial

    def last_resort(self, order: Sequence[Unit]) -> tuple[list[Unit], Trial]:
        """Keep all but the least harmful of the units ``order``. Raises BudgetError where not even that holds."""
        least = min(order, key=self.harm)
        kept = [unit for unit in order if unit is not least]
        if kept and self.left:
            trial = self.evaluate(kept)
            if trial.held:
                return kept, trial
        if not self.left:
            raise self.spent()
        if self.evaluate(self.units).held:
            raise self.failure("they hold only with nothing left in int8")
        raise self.failure("they do not even hold with every layer in higher precision")

    def shrink(self, kept: list[Unit], trial: Trial) -> tuple[list[Unit], Trial]:
        """Return what still holds of ``kept``, the most valuable unit first, when the evaluations are spent."""
        tail, needed = kept[::-1], False
        chunk = len(tail)
        while self.left and tail and not needed:
            found = self.without(kept, tail[:chunk])
            if found is not None:
                (kept, trial), tail = found, tail[chunk:]
            elif chunk > 1:
                chunk = (chunk + 1) // 2
            else:
                tail, needed = tail[1:], True
        while self.left and tail:
            room = {v.budget.task: v.budget.allowed - v.drop for v in trial.verdicts}

            def promise(unit: Unit, room: dict[str, float] = room) -> tuple[bool, float]:
                return all(drop <= room[task] for task, drop in self.predicted[unit.name].items()), unit.cost

            unit = max(tail, key=promise)
            tail.remove(unit)
            if unit.cost >= _WORTHWHILE * self.cost:
                kept, trial = self.without(kept, [unit]) or (kept, trial)
        return kept, trial

    def without(self, kept: list[Unit], given_back: Sequence[Unit]) -> tuple[list[Unit], Trial] | None:
        """Return ``kept`` without the units ``given_back``, and its trial; ``None`` where that does not hold.

        Keeping less than what already failed is taken to fail too, without an evaluation.
        """
        smaller = [unit for unit in kept if unit not in given_back]
        names = {unit.name for unit in smaller}
        if any(names <= failed for failed in self.failed):
            return None
        trial = self.evaluate(smaller)
        return (smaller, trial) if trial.held else None

    def harm(self, unit: Unit) -> float:
        """The largest drop that ``unit`` alone is predicted to cause, as a share of what is allowed."""
        predicted = self.predicted[unit.name]
        return max(predicted[budget.task] / max(budget.allowed, 1e-9) for budget in self.budgets.items)

    def outcome(self, kept: Sequence[Unit], trial: Trial) -> Outcome:
        """Return the record of the search."""
        names = set(trial.keep)
        return Outcome(
            self.budgets,
            tuple(unit for unit in self.units if unit.name in names),
            trial,
            tuple(self.trials),
            self.probed,
        )

    def spent(self) -> BudgetError:
        """Return the error for a search whose evaluations did not suffice."""
        return self.failure(f"after {self.evaluations} evaluation{'s' * (self.evaluations > 1)} none is left")

    def failure(self, why: str) -> BudgetError:
        """Return the error, with the trial that came nearest."""
        return BudgetError(why, self.budgets, self.trials, len(self.units))


def _needs(trial: Trial) -> dict[str, float]:
    """Return the share of its drop that each task which is over has to lose: above 0, at most _MOST."""
    over = [verdict for verdict in trial.verdicts if not verdict.held]
    return {v.budget.task: min(max(1 - v.budget.allowed / v.drop, _LEAST), _MOST) for v in over}
