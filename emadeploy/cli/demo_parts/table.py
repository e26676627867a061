"""The demo's one table: a line per fact, a column per graph, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from emadeploy.bench.page import Facts
from emadeploy.bench.rows import Row
from emadeploy.cli.demo_parts.findings import Findings
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.metrics import METRICS
from emadeploy.evaluate.parity import MEASURES

if TYPE_CHECKING:
    from rich.table import Table

_NOTHING = "–"


def facts(found: Findings) -> Facts:
    """Return the table: headings are rows of one cell, facts rows of four (what, published, rewritten, ratio)."""
    rows: list[Sequence[str]] = [("graph",)]
    rows.append(_line("size, MB", [row.size_mb for row in found.rows], "{:.1f}"))
    rows.append(_line("parameters, millions", [count / 1e6 for count in found.parameters], "{:.2f}"))
    rows += _speed(found.rows)
    rows.append((f"accuracy on {found.room_count} made rooms, held out{_doubt(found)}",))
    rows += _accuracy(found.spec, [row.tasks for row in found.rows])
    if any(found.photograph.values()):
        rows.append((f"depth of a photograph (Middlebury Motorcycle){_doubt(found)}",))
        rows += _photograph([found.photograph.get(row.name, {}) for row in found.rows])
    if found.agreement:
        rows.append((f"agreement of the rewritten graph with the published one, {found.frame_count} frames",))
        for task, values in found.agreement.items():
            for name, value in values.items():
                what, unit = MEASURES[name]
                rows.append((f"{task}: {what}{f', {unit}' if unit else ''}", "", f"{value:.4g}", ""))
    notes = [f"{row.name}: {row.status}" for row in found.rows if not row.measured]
    return Facts(("", *(row.name for row in found.rows), "ratio"), rows, notes)


def rich_table(table: Facts, title: str) -> Table:
    """Return the table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left")
    for column in table.columns:
        shown.add_column(column, justify="right" if column else "left", overflow="fold")
    for row in table.rows:
        if len(row) == 1:
            shown.add_section()
            shown.add_row(Text(row[0], style="bold"))
        else:
            shown.add_row(*map(Text, row))
    return shown


def _speed(rows: Sequence[Row]) -> list[Sequence[str]]:
    counted = next((row.latency_ms["n"] for row in rows if row.latency_ms), 0)
    threads = f"{rows[0].threads} thread" + "s" * (rows[0].threads > 1)
    lines: list[Sequence[str]] = [(f"speed on this machine, {threads}, median of {counted:.0f} runs in turns",)]
    lines.append(_line("network, ms", _of(rows, lambda row: row.latency_ms, "p50"), "{:.1f}", _times(rows, "speedup")))
    total = _of(rows, lambda row: row.end_to_end_ms, "p50")
    lines.append(_line("frame to maps, ms", total, "{:.1f}", _times(rows, "speedup_end_to_end")))
    lines.append(_line("frames per second", [row.fps for row in rows], "{:.2f}"))
    lines.append(("memory, each in a process of its own",))
    lines.append(_line("peak, MB", [row.peak_memory_mb for row in rows], "{:.0f}", "less"))
    lines.append(_line("of it without the model, MB", [row.baseline_memory_mb for row in rows], "{:.0f}"))
    lines.append(_line("start to first maps, s", [row.cold_start_s for row in rows], "{:.1f}", "less"))
    return lines


def _accuracy(spec: ModelSpec, tasks: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Sequence[str]]:
    lines = []
    for task in spec.tasks:
        for metric in METRICS[task.kind]:
            values = [found.get(task.name, {}).get(metric.name) for found in tasks]
            if metric.in_mean and any(value is not None for value in values):
                unit = task.unit if metric.unit == "unit" else metric.unit
                arrow = "↑" if metric.higher_is_better else "↓"
                lines.append(
                    _line(f"{task.name}: {metric.name}{f', {unit}' if unit else ''} {arrow}", values, "{:.4g}")
                )
    return lines


def _photograph(found: Sequence[Mapping[str, float]]) -> list[Sequence[str]]:
    names = {
        "abs": "abs, metre ↓",
        "rel": "rel ↓",
        "rmse": "rmse, metre ↓",
        "rel_scaled": "rel, scaled to the true median ↓",
    }
    return [_line(what, [values.get(name) for values in found], "{:.4g}") for name, what in names.items()]


def _line(what: str, values: Sequence[float | None], form: str, ratio: str = "") -> Sequence[str]:
    """Return the cells of a line; ``ratio`` 'less' stands for how many times less the last value is than the first."""
    first, last = values[0], values[-1]
    if ratio == "less":
        ratio = _compared(first / last, "less", "more") if first and last else ""
    return (what, *(_NOTHING if value is None else form.format(value) for value in values), ratio)


def _of(rows: Sequence[Row], which: Callable[[Row], Mapping[str, float] | None], name: str) -> list[float | None]:
    spreads = [which(row) for row in rows]
    return [None if spread is None else spread[name] for spread in spreads]


def _times(rows: Sequence[Row], name: str) -> str:
    value = getattr(rows[-1], name)
    return "" if value is None else _compared(value, "faster", "slower")


def _compared(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.1f}× {better}" if ratio >= 1 else f"{1 / ratio:.1f}× {worse}"


def _doubt(found: Findings) -> str:
    return " (untrained: meaningless)" if found.untrained else ""
