"""What int8 may cost: a budget per task, on the task's own metric, against the network in float.

    semseg=1.0,depth=2%,normals=0.5deg

| task | metric | budget |
|---|---|---|
| semseg, human_parts | ``miou`` | points: percent that it may fall |
| edge, saliency | ``f1``, ``maxf`` | points |
| depth | ``rel`` | percent of the relative error in float, that it may rise |
| normals | ``mean`` | degrees that the mean angle may rise |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.plain import require
from emadeploy.evaluate.metrics import METRICS, TaskMetrics

if TYPE_CHECKING:
    from rich.table import Table

_POINTS, _PERCENT, _DEGREES = "points", "%", "deg"
#: Kind of task -> metric, what is allowed unless asked otherwise, unit.
_DEFAULTS = {
    "semseg": ("miou", 1.0, _POINTS),
    "depth": ("rel", 2.0, _PERCENT),
    "normals": ("mean", 0.5, _DEGREES),
    "edge": ("f1", 1.0, _POINTS),
    "saliency": ("maxf", 1.0, _POINTS),
    "human_parts": ("miou", 1.0, _POINTS),
}
#: How a unit is written after the number.
_SUFFIXES = {_POINTS: "", _PERCENT: "%", _DEGREES: "deg"}
#: A drop of just what is allowed is not over it by the rounding of a subtraction.
_ROUNDING = 1e-9
_ITEM = re.compile(r"(\w+)\s*=\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*(%|deg)?")


@dataclass(frozen=True)
class Budget:
    """What ``metric`` of ``task`` may lose: ``allowed`` of ``unit``, or percent of its value in float if ``relative``.

    It is written as ``str`` gives it: 'semseg=1.0', 'depth=2%', 'normals=0.5deg'.
    """

    task: str
    metric: str
    allowed: float
    relative: bool
    unit: str

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.allowed) and self.allowed >= 0,
            f"the budget of {self.task}, {self.allowed}, is not a finite number from 0 up",
        )

    @classmethod
    def of(cls, task: str, allowed: float | None = None) -> Budget:
        """Return the budget of a task, by default what the zoo's model is held to; raises SpecError."""
        require(task in _DEFAULTS, f"task {task!r} is unknown; known: {', '.join(_DEFAULTS)}")
        metric, default, unit = _DEFAULTS[task]
        return cls(task, metric, default if allowed is None else allowed, unit == _PERCENT, unit)

    def __str__(self) -> str:
        return f"{self.task}={self.allowed!r}{_SUFFIXES[self.unit]}"

    def drop(self, reference: float, obtained: float | None) -> float:
        """Return what was lost, in ``unit``: negative where it got better, infinite where there is no finite value.

        Infinity, unlike NaN, is over every budget. ``reference`` is finite, and not 0 where the budget is relative.
        """
        if obtained is None or not math.isfinite(obtained):
            return math.inf
        better_is_higher = next(m.higher_is_better for m in METRICS[self.task] if m.name == self.metric)
        lost = reference - obtained if better_is_higher else obtained - reference
        return 100 * lost / abs(reference) if self.relative else lost


@dataclass(frozen=True)
class Verdict:
    """One budget judged: the metric in float and ``obtained`` (``None``: no value), and the ``drop`` between them."""

    budget: Budget
    reference: float
    obtained: float | None
    drop: float

    @property
    def held(self) -> bool:
        """Whether the drop is within the budget."""
        return self.drop <= self.budget.allowed + _ROUNDING

    @property
    def excess(self) -> float:
        """The drop as a multiple of what is allowed: at most 1 where held."""
        share = max(self.drop, 0.0) / self.budget.allowed if self.budget.allowed else math.inf
        return min(share, 1.0) if self.held else share

    def __str__(self) -> str:
        budget, now = self.budget, "nothing" if self.obtained is None else f"{self.obtained:.4g}"
        held = "held" if self.held else "OVER"
        lost = f"drop {self.drop:.3g} of {budget.allowed:g} {budget.unit}"
        return f"{budget.task} {budget.metric} {self.reference:.4g} -> {now}, {lost}: {held}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json; ``drop`` is null where the metric had no value."""
        budget = {"task": self.budget.task, "metric": self.budget.metric, "unit": self.budget.unit}
        drop = self.drop if math.isfinite(self.drop) else None
        found = {"reference": self.reference, "obtained": self.obtained, "drop": drop}
        return {**budget, **found, "allowed": self.budget.allowed, "held": self.held}


@dataclass(frozen=True)
class Budgets:
    """The budgets of a model's tasks, in their order. ``str`` is what `parse_budgets` reads back to the same."""

    items: tuple[Budget, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.items))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a budget."""
        return tuple(budget.task for budget in self.items)

    def judge(self, reference: TaskMetrics, metrics: TaskMetrics) -> tuple[Verdict, ...]:
        """Judge ``metrics`` by what the network in float has, ``reference``; both by task and name, as `evaluate` says.

        Raises CalibrationError where ``reference`` cannot be compared with: no truth in the data, no finite value.
        """
        verdicts = []
        for budget in self.items:
            base = _reference(budget, reference)
            obtained = metrics.get(budget.task, {}).get(budget.metric)
            if obtained is not None and not math.isfinite(obtained):
                obtained = None
            verdicts.append(Verdict(budget, base, obtained, budget.drop(base, obtained)))
        return tuple(verdicts)

    def drops(self, reference: TaskMetrics, metrics: TaskMetrics) -> dict[str, float]:
        """Return the drop of each task in its budget's unit, `Budget.drop`; raises as `judge` does."""
        return {verdict.budget.task: verdict.drop for verdict in self.judge(reference, metrics)}

    def over(self, reference: TaskMetrics, metrics: TaskMetrics) -> tuple[str, ...]:
        """Return the tasks that are over their budgets; raises as `judge` does."""
        return tuple(verdict.budget.task for verdict in self.judge(reference, metrics) if not verdict.held)


def parse_budgets(text: str | None, tasks: Sequence[str], defaults: Mapping[str, float] | None = None) -> Budgets:
    """Return the budgets that ``text`` asks for, 'semseg=1.0,depth=2%,normals=0.5deg', of a model with ``tasks``.

    A task that is not named keeps its default, which ``defaults`` (a recipe's budgets, in the same units) may set;
    ``None`` asks for nothing else. Raises SpecError.
    """
    defaults = defaults or {}
    asked: dict[str, Budget] = {}
    for item in () if text is None else text.split(","):
        budget = _parse(item.strip(), tasks)
        require(budget.task not in asked, f"the budgets {text!r} name {budget.task} twice")
        asked[budget.task] = budget
    return Budgets(tuple(asked.get(task) or Budget.of(task, defaults.get(task)) for task in tasks))


def verdict_table(verdicts: Sequence[Verdict], title: str = "") -> Table:
    """Return the table for the terminal: task, metric, in float, obtained, drop, allowed, held or over."""
    from rich.table import Table

    table = Table("task", "metric", title=title or None, title_justify="left")
    for column in ("in float", "obtained", "drop", "allowed"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    table.add_column("budget")
    for verdict in verdicts:
        budget = verdict.budget
        now = "nothing" if verdict.obtained is None else f"{verdict.obtained:.4g}"
        numbers = (f"{verdict.reference:.4g}", now, f"{verdict.drop:+.3g}", f"{budget.allowed:g}")
        held = "[green]held[/green]" if verdict.held else "[bold red]over[/bold red]"
        table.add_row(budget.task, budget.metric, *numbers, budget.unit, held)
    return table


def in_words(verdicts: Sequence[Verdict]) -> str:
    """Return the same table in a line, for messages and logs."""
    return "; ".join(map(str, verdicts))


def _parse(item: str, tasks: Sequence[str]) -> Budget:
    accepted = ",".join(str(Budget.of(task)) for task in tasks)
    match = _ITEM.fullmatch(item)
    if match is None:
        raise SpecError(f"budget {item!r} is not TASK=NUMBER with its unit; accepted are e.g. {accepted}")
    task, number, suffix = match.groups()
    require(task in tasks, f"budget {item!r}: no task {task!r} is exported; accepted are e.g. {accepted}")
    budget = Budget.of(task, float(number))
    wanted = _SUFFIXES[budget.unit]
    if (suffix or "") != wanted:
        said = f"in {suffix}" if suffix else "without a unit"
        unit = {_POINTS: "points", _PERCENT: "percent", _DEGREES: "degrees"}[budget.unit]
        raise SpecError(f"budget {item!r} is {said}; {task} takes {unit} of {budget.metric}, e.g. {Budget.of(task)}")
    return budget


def _reference(budget: Budget, reference: Mapping[str, Mapping[str, float]]) -> float:
    value = reference.get(budget.task, {}).get(budget.metric)
    if value is None:
        judged = ", ".join(task for task, row in reference.items() if row) or "no task"
        raise CalibrationError(
            f"the data has no truth for {budget.task}, whose budget is {budget}; it judges {judged}: give data that "
            f"has it, or leave the task out with --tasks"
        )
    if not math.isfinite(value) or (budget.relative and value == 0):
        raise CalibrationError(
            f"{budget.task}: {budget.metric} of the network in float is {value}, against which no drop can be measured"
        )
    return float(value)
