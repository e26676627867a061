"""What a search for the budgets found: a record for the manifest, a table for people, an error where it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emadeploy.calibrate.budgets import Budgets, Verdict, in_words, verdict_table
from emadeploy.calibrate.units import Unit, nodes_of
from emadeploy.contract.errors import CalibrationError
from emadeploy.evaluate.metrics import TaskMetrics

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Trial:
    """One evaluation: the units kept in higher precision, by name; their ``share`` of the cost of all, 0 to 1."""

    keep: tuple[str, ...]
    share: float
    verdicts: tuple[Verdict, ...]
    metrics: Mapping[str, Mapping[str, float]]

    @property
    def held(self) -> bool:
        """Whether every budget holds."""
        return all(verdict.held for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json: what was kept, and the drop by task; null where a metric had no value."""
        drops = {row["task"]: row["drop"] for row in (verdict.to_dict() for verdict in self.verdicts)}
        return {"keep": list(self.keep), "share": self.share, "drops": drops, "held": self.held}


@dataclass(frozen=True)
class Outcome:
    """The budgets hold: ``kept`` stays in higher precision, ``trial`` is its evaluation.

    ``history``: every evaluation in turn, the first being plain int8; ``probes``: the cheap measurements taken.
    """

    budgets: Budgets
    kept: tuple[Unit, ...]
    trial: Trial
    history: tuple[Trial, ...]
    probes: int

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that stay in higher precision."""
        return nodes_of(self.kept)

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """The metrics by task, with ``kept`` in higher precision."""
        return self.trial.metrics

    @property
    def evaluations(self) -> int:
        """Evaluations spent."""
        return len(self.history)

    def confirmed(self, reference: TaskMetrics, metrics: TaskMetrics) -> Outcome:
        """Return the outcome as judged by ``metrics`` of what was built for it in the end.

        Raises CalibrationError where a budget does not hold there: it was built otherwise than it was tried out.
        """
        verdicts = self.budgets.judge(reference, metrics)
        if not all(verdict.held for verdict in verdicts):
            raise CalibrationError(
                f"the budgets {self.budgets} held when tried out ({in_words(self.trial.verdicts)}) and do not in what "
                f"was built: {in_words(verdicts)}. Allow more with --max-drop, and report this"
            )
        plain = {task: dict(row) for task, row in metrics.items()}
        return replace(self, trial=replace(self.trial, verdicts=verdicts, metrics=plain))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the manifest."""
        return {
            "budgets": str(self.budgets),
            "tasks": [verdict.to_dict() for verdict in self.trial.verdicts],
            "kept": [{"unit": unit.name, "section": unit.section, "nodes": list(unit.nodes)} for unit in self.kept],
            "kept_share": self.trial.share,
            "evaluations": self.evaluations,
            "probes": self.probes,
            "history": [trial.to_dict() for trial in self.history],
        }

    def table(self) -> Table:
        """Return the table for the terminal, `budgets.verdict_table`."""
        return verdict_table(self.trial.verdicts, self.summary())

    def summary(self) -> str:
        """Return what was kept in a line, by section, most expensive first."""
        evaluated = f"{self.evaluations} evaluation{'s' * (self.evaluations > 1)}"
        if not self.kept:
            return f"every budget holds in plain int8 ({evaluated})"
        cost: dict[str, float] = {}
        count: dict[str, int] = {}
        for unit in self.kept:
            cost[unit.section] = cost.get(unit.section, 0.0) + unit.cost
            count[unit.section] = count.get(unit.section, 0) + 1
        where = ", ".join(f"{count[section]} in {section}" for section in sorted(cost, key=lambda s: (-cost[s], s)))
        many = f"{len(self.kept)} unit{'s' * (len(self.kept) > 1)}"
        return (
            f"every budget holds with {many} in higher precision ({where}), "
            f"{100 * self.trial.share:.1f} % of the cost of all ({evaluated})"
        )


class BudgetError(CalibrationError):
    """The budgets cannot hold in int8. ``verdicts``: those of the ``nearest`` trial; ``history``: every trial."""

    def __init__(self, why: str, budgets: Budgets, history: Sequence[Trial], units: int) -> None:
        self.budgets, self.history = budgets, tuple(history)
        self.nearest = min((t for t in history if len(t.keep) < units), key=_worst)
        self.verdicts = self.nearest.verdicts
        super().__init__(
            f"the budgets {budgets} do not hold in int8: {why}. Nearest, with {len(self.nearest.keep)} of {units} "
            f"units in higher precision ({100 * self.nearest.share:.1f} % of the cost): {in_words(self.verdicts)}. "
            f"Evaluations: {len(history)}. Allow more with --max-drop, calibrate on more frames, or export in float"
        )

    def table(self) -> Table:
        """Return the table of the nearest trial for the terminal."""
        return verdict_table(self.verdicts, f"nearest to the budgets, {len(self.nearest.keep)} units kept")


def _worst(trial: Trial) -> tuple[float, float]:
    return max(verdict.excess for verdict in trial.verdicts), trial.share
