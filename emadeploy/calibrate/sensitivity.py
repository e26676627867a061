"""Where int8 hurts: the harm of each section of the network to each task, as a table, a record and a picture.

Two numbers per section and task, both drops in the unit of the task's budget:

- ``alone``: with this section in int8 and everything else in higher precision: what it does by itself.
- ``without``: with everything in int8 but this section: what would be left if it stayed in higher precision.

Where a section is harmless alone, but everything is harmful without it too, the harm is of several sections together.
What is not in int8 runs in the recipe's higher precision, which may round as well, as bf16 does: ``floor`` is the drop
with nothing in int8 at all, and no row can be much below it.
``error`` is the relative error of the raw maps, with the section alone in int8: it needs no truth, and shows harm far
below what the metrics of a few frames resolve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emadeploy.calibrate.budgets import Budgets
from emadeploy.calibrate.units import Measure, Probe, Progress, Unit, check_units, nodes_of
from emadeploy.contract.plain import require
from emadeploy.evaluate.metrics import TaskMetrics

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
_NONE, _ALL = "none in int8", "all in int8"


@dataclass(frozen=True)
class SectionHarm:
    """The harm of one section by task; see the head of the module. ``share``: of the cost of all units, 0 to 1.

    A drop is infinite where the metric had no value. ``without`` is ``None`` where it was not measured.
    """

    section: str
    share: float
    alone: Mapping[str, float]
    error: Mapping[str, float]
    without: Mapping[str, float] | None = None


@dataclass(frozen=True)
class SensitivityTable:
    """The harm of every section, in the order of the network; ``plain``: the drop with all of them in int8.

    ``floor``: the drop with none of them in int8, ``floor_error`` the relative error of its raw maps.
    ``facts`` say what was measured: model, target, data, frames.
    """

    budgets: Budgets
    rows: tuple[SectionHarm, ...]
    plain: Mapping[str, float]
    floor: Mapping[str, float]
    floor_error: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def worst(self, task: str) -> SectionHarm:
        """Return the section that harms ``task`` most, by itself."""
        return max(self.rows, key=lambda row: (row.alone[task], _number(row.error[task])))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json; null where a metric or an error had no finite value."""
        tasks = {b.task: {"metric": b.metric, "unit": b.unit, "allowed": b.allowed} for b in self.budgets.items}
        sections = [
            {
                "section": row.section,
                "share": row.share,
                "alone": _finite(row.alone),
                "error": _finite(row.error),
                "without": None if row.without is None else _finite(row.without),
            }
            for row in self.rows
        ]
        ends = {"plain": _finite(self.plain), "floor": _finite(self.floor), "floor_error": _finite(self.floor_error)}
        return {"schema": SCHEMA, **self.facts, "tasks": tasks, **ends, "sections": sections}

    def table(self, title: str = "") -> Table:
        """Return the table for the terminal: a row per section; what is over a budget is red.

        The errors stand in it only where the drops without a section were not measured; the record has both.
        """
        from rich import box
        from rich.table import Table

        complete = all(row.without is not None for row in self.rows)
        table = Table(
            title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        table.add_column("section", no_wrap=True)
        table.add_column("cost", justify="right")
        for budget in self.budgets.items:
            table.add_column(f"{budget.task}\n{budget.unit}\nalone", justify="right")
            table.add_column("\n\nwithout" if complete else "\n\nerror", justify="right")
        for row in self.rows:
            cells = []
            for budget in self.budgets.items:
                task, left = budget.task, row.without
                cells.append(_cell(row.alone[task], budget.allowed))
                cells.append(_cell(left[task], budget.allowed) if complete and left else f"{row.error[task]:.1e}")
            table.add_row(row.section, f"{100 * row.share:.0f} %", *cells, end_section=row is self.rows[-1])
        for name, share, drops, errors in (
            (_NONE, "0 %", self.floor, self.floor_error),
            (_ALL, "100 %", self.plain, {}),
        ):
            cells = []
            for budget in self.budgets.items:
                error = errors.get(budget.task)
                cells.append(_cell(drops[budget.task], budget.allowed))
                cells.append("" if complete or error is None else f"{error:.1e}")
            table.add_row(name, share, *cells)
        return table

    def picture(self) -> bytes:
        """Return the heat map as a PNG: a row per section, a column per task, the drops as shares of the budgets."""
        from emadeploy.calibrate.heatmap import Panel, heat_map

        tasks = [f"{budget.task}, {budget.unit}, of {budget.allowed:g}" for budget in self.budgets.items]

        def panel(title: str, rows: Sequence[Mapping[str, float]]) -> Panel:
            drops = [[row[budget.task] for budget in self.budgets.items] for row in rows]
            allowed = [budget.allowed for budget in self.budgets.items]
            return Panel(title, tasks, drops, allowed)

        panels = [panel("alone in int8", [*(row.alone for row in self.rows), self.floor, self.plain])]
        without = [row.without for row in self.rows if row.without is not None]
        if len(without) == len(self.rows):
            panels.append(panel("all in int8 but this", [*without, self.floor, self.plain]))
        title = f"{self.facts.get('model', '')} {self.facts.get('target', '')}".strip()
        return heat_map([*(row.section for row in self.rows), _NONE, _ALL], panels, title=title)


def sensitivity(
    units: Sequence[Unit],
    measure: Measure,
    probe: Probe,
    budgets: Budgets,
    reference: TaskMetrics,
    *,
    without: bool = True,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SensitivityTable:
    """Return the harm of every section of ``units`` to every task, against ``reference``, the metrics in float.

    ``measure`` and ``probe`` are called once per section and once with everything kept, ``measure`` once more with
    nothing kept, and once more per section for the drops ``without`` it, if they are wanted.

    Raises SpecError for units that overlap or budgets of no task, CalibrationError as `Budgets.judge` does.
    """
    check_units(units)
    require(bool(budgets.items), "there is no task to measure the harm to")
    sections: dict[str, list[Unit]] = {}
    for unit in units:
        sections.setdefault(unit.section, []).append(unit)
    everything, cost = nodes_of(units), sum(unit.cost for unit in units)
    total, done = 3 + len(sections) * (3 if without else 2), 0

    def counted(value: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        return value

    plain = budgets.drops(reference, counted(measure(frozenset())))
    floor, floor_error = budgets.drops(reference, counted(measure(everything))), dict(counted(probe(everything)))
    rows = []
    for section, group in sections.items():
        nodes = nodes_of(group)
        rows.append(
            SectionHarm(
                section,
                sum(unit.cost for unit in group) / cost,
                budgets.drops(reference, counted(measure(everything - nodes))),
                dict(counted(probe(everything - nodes))),
                budgets.drops(reference, counted(measure(nodes))) if without else None,
            )
        )
    return SensitivityTable(budgets, tuple(rows), plain, floor, floor_error, dict(facts or {}))


def _cell(drop: float, allowed: float) -> str:
    if not math.isfinite(drop):
        return "[bold red]lost[/bold red]"
    text = f"{drop:+.2f}"
    return f"[red]{text}[/red]" if drop > allowed else text


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _number(error: float) -> float:
    return error if math.isfinite(error) else math.inf
