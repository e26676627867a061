"""The table of a report: a line per engine, a column per number; the same for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emadeploy.bench.rows import Report, Row
from emadeploy.bench.stats import QUERIES
from emadeploy.contract.manifest import TARGETS
from emadeploy.evaluate.metrics import Metric, metrics_in

NOTHING = "–"
ESTIMATE = "estimate"
#: Stands behind the name of a row whose times are not to be trusted.
UNSTABLE = "!"
_SHORT = {"metre": "m"}
_NETWORK, _WHOLE = ("network",), ("frame", "to maps")
_SPREADS = ((_NETWORK, "latency_ms"), (_WHOLE, "end_to_end_ms"))
_Value = Callable[[Row], Any]


@dataclass(frozen=True)
class Column:
    """``head`` in up to three short lines, the unit last. ``cells`` in the order of the rows."""

    head: tuple[str, ...]
    cells: tuple[str, ...]


def names(report: Report) -> list[str]:
    """Return what the lines are called: an estimate says so in every line, and so do unstable times and failures."""
    return [_name(row) for row in report.rows]


def columns(report: Report) -> list[Column]:
    """Return the columns in which at least one row has something."""
    rows = report.rows
    found = [
        *_times(rows),
        _column(rows, (*_NETWORK, "at least", "ms"), _of("latency_ms", "bound"), milliseconds),
        _column(rows, ("fps",), lambda row: row.fps, rate),
        _column(rows, ("stream", "fps"), lambda row: row.stream_fps, rate),
        _column(rows, (*_NETWORK, "ratio"), lambda row: row.speedup, times),
        _column(rows, (*_WHOLE, "ratio"), lambda row: row.speedup_end_to_end, times),
        *_accuracy(rows),
        _column(rows, ("size", "MB"), lambda row: row.size_mb, "{:.1f}".format),
        _column(rows, ("memory", "MB"), lambda row: row.peak_memory_mb, "{:.0f}".format),
        _column(rows, ("memory", "of GPU", "MB"), lambda row: row.device_memory_mb, "{:.0f}".format),
        _column(rows, ("energy", "J/frame"), lambda row: row.energy_j, "{:.3g}".format),
        _column(rows, ("start", "s"), lambda row: row.cold_start_s, "{:.1f}".format),
    ]
    return [column for column in found if any(cell != NOTHING for cell in column.cells)]


def notes(report: Report) -> Iterator[str]:
    """Yield what must stand under the table: what failed and why, what is not to be trusted, what a ratio is to."""
    estimated = [row for row in report.rows if row.estimate]
    if estimated:
        which = "all lines are estimates" if len(estimated) == len(report.rows) else "lines that say estimate"
        yield f"{which}: computed from the layers of the artifact, not measured; p50 is the likely value"
    for row in report.rows:
        if not row.measured:
            yield f"{row.name}: {row.status}"
        if row.unstable:
            yield f"{UNSTABLE} {row.name}: its times are not to be trusted: {row.unstable}"
        if row.incomparable:
            yield f"{row.name}: no ratio: {row.incomparable}"
    for note in dict.fromkeys(note for row in report.rows for note in row.notes):
        about = [row.name for row in report.rows if note in row.notes]
        yield f"{', '.join(about) if len(about) < len(report.rows) or len(about) == 1 else 'all'}: {note}"
    untrained = [row.name for row in report.rows if row.untrained]
    if untrained:
        yield f"untrained, random weights, good for timing alone: {', '.join(untrained)}"
    for name in dict.fromkeys(row.against for row in report.rows if row.against and row.speedup is not None):
        yield f"ratio: how many times faster than {name}, in rounds in which both ran one after the other"
    for data in dict.fromkeys(row.data for row in report.rows if row.tasks and row.data):
        held = any(row.data == data and reference(row, report.rows) for row in report.rows)
        yield f"accuracy on {data}{'; in brackets the difference from fp32' if held else ''}"
    yield from _untold(report.rows)


def reference(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the fp32 row whose accuracy ``row`` is held against: of its own engine if there is one, else the first.

    ``None`` for a row that is one itself, or where none was judged on the same data.
    """
    if _precision(row) == "fp32" or not row.tasks:
        return None
    floats = [other for other in rows if _precision(other) == "fp32" and other.tasks and other.data == row.data]
    engine = TARGETS.get(row.target, ("",))[0]
    return next((other for other in floats if TARGETS[other.target][0] == engine), floats[0] if floats else None)


def primary_metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    """Return the metric that stands for each task, by task: the first that all rows with this task have."""
    found = {}
    for task in dict.fromkeys(task for row in rows for task in row.tasks):
        shared = metrics_in(task, *(row.tasks[task] for row in rows if task in row.tasks))
        if shared:
            found[task] = shared[0]
    return found


def metric_title(metric: Metric, task: str, rows: Sequence[Row]) -> str:
    """Return the metric with its unit: 'rel', 'miou %', and 'abs m' where ``rows`` have the unit of the ``task``."""
    own = {row.units[task] for row in rows if task in row.units}
    # Of networks whose depths are of different units no unit is right; so there is none.
    shared = own.pop().replace("_", " ") if len(own) == 1 else ""
    unit = metric.unit if metric.unit != "unit" else _SHORT.get(shared, shared)
    return f"{metric.name} {unit}".rstrip()


def milliseconds(value: float) -> str:
    """Return a time with three digits or more: '0.123', '1.23', '12.3', '1234.5'."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def rate(value: float) -> str:
    """Return frames per second with three digits or more."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def times(value: float) -> str:
    """Return a ratio: '3.21×'."""
    return f"{value:.2f}×"


def _name(row: Row) -> str:
    marks = [f"({ESTIMATE})"] if row.estimate else []
    marks += [UNSTABLE] if row.unstable else []
    marks += ["(failed)"] if not row.measured else []
    return " ".join([row.name, *marks])


def _precision(row: Row) -> str | None:
    return TARGETS[row.target][1] if row.target in TARGETS else None


def _accuracy(rows: Sequence[Row]) -> Iterator[Column]:
    for task, metric in primary_metrics(rows).items():
        arrow = "↑" if metric.higher_is_better else "↓"
        cells = [_judged(row, rows, task, metric.name) for row in rows]
        yield Column((task, f"{metric_title(metric, task, rows)} {arrow}"), tuple(cells))


def _judged(row: Row, rows: Sequence[Row], task: str, metric: str) -> str:
    if task not in row.tasks:
        return NOTHING
    value = row.tasks[task][metric]
    base = reference(row, rows)
    if base is None or task not in base.tasks:
        return f"{value:.4g}"
    difference = value - base.tasks[task][metric]
    return f"{value:.4g} ({difference:+.2g})" if difference else f"{value:.4g} (0)"


def _times(rows: Sequence[Row]) -> Iterator[Column]:
    for what, field in _SPREADS:
        for percentile in QUERIES:
            key = f"p{percentile}"
            yield _column(rows, (*what, f"{key} ms"), _of(field, key), milliseconds)


def _of(field: str, key: str) -> _Value:
    return lambda row: (getattr(row, field) or {}).get(key)


def _column(rows: Sequence[Row], head: tuple[str, ...], value: _Value, form: Callable[[float], str]) -> Column:
    found = [value(row) if row.measured else None for row in rows]
    return Column(head, tuple(NOTHING if number is None else form(number) for number in found))


def _untold(rows: Sequence[Row]) -> Iterator[str]:
    timed = [row.latency_ms for row in rows if row.measured and row.latency_ms and not row.estimate]
    missing = [p for p in QUERIES if any(spread.get(f"p{p}") is None for spread in timed)]
    if missing:
        needed = ", ".join(f"p{percentile} {QUERIES[percentile]}" for percentile in missing)
        yield f"{NOTHING} or no column: too few calls to tell it ({needed}): --percentile {missing[-1]}"
