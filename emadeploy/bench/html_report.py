"""The page of a report: the table, and what is behind its numbers; a section only where there is something to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from emadeploy.bench.columns import columns, metric_title, names, notes, primary_metrics
from emadeploy.bench.page import Facts, Frame, Page, Section
from emadeploy.bench.plots import SERIES, Bar, Point, bars, histogram, scatter
from emadeploy.bench.rows import Report, Row

#: Layers in the table of a row, those that take most time first.
_TOP = 15
#: What a call's times are of -> their name in 'samples_ms', and the field of what they say.
_SAMPLES = {"network": ("inference", "latency_ms"), "frame to maps": ("total", "end_to_end_ms")}
_PERCENTILES = ("p50", "p90", "p99")
#: Precision -> colour, the same in every plot; what is not here takes the last.
_COLOURS = {"int8": 0, "bf16": 3, "fp16": 3, "fp32": 2}
_MACHINE = {
    "cpu": "CPU",
    "jetson": "Jetson",
    "gpu": "GPU",
    "architecture": "architecture",
    "cores": "cores",
    "flags": "for low precision",
    "memory_mb": "memory, MB",
    "system": "system",
    "l4t": "L4T",
}


def compose(
    report: Report, audits: Mapping[str, Mapping[str, Any]] | None = None, pictures: Section | None = None
) -> Page:
    """Return the page. ``audits``: per name of a row what its engine ran in, as manifests have it under 'audit'.

    ``pictures``: a section of sample pictures, which only those who may open data can make.
    """
    sections = [_accuracy(report.rows), _latency(report.rows), _stages(report.rows), _layers(report.rows)]
    sections += [_audits(report.rows, audits or {}), pictures]
    return Page(
        title="emadeploy bench",
        lead=_lead(report),
        warning=_warning(report.rows),
        facts=_table(report),
        # That of an estimate is in its name; this one only did the sums.
        machine=() if _all_estimates(report.rows) else _machine(report.machine),
        sections=[section for section in sections if section is not None and section.frames],
        footer=("Written by emadeploy bench. This file is complete in itself: nothing is fetched when it is opened.",),
    )


def _lead(report: Report) -> str:
    measured = sum(row.measured and not row.estimate for row in report.rows)
    estimated = sum(row.measured and row.estimate for row in report.rows)
    parts = [_count(measured, "engine") + " measured"] if measured or not estimated else []
    parts += [_count(estimated, "estimate") + ", not measured"] if estimated else []
    failed = len(report.failed)
    parts += [f"{failed} failed"] if failed else []
    how = " Each ran in a process of its own, one frame after the other." if measured else ""
    return f"{'; '.join(parts)}.{how}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _all_estimates(rows: Sequence[Row]) -> bool:
    return bool(rows) and all(row.estimate for row in rows)


def _warning(rows: Sequence[Row]) -> str:
    if _all_estimates(rows):
        return "Estimates: computed from the layers of the artifacts. Nothing on this page was measured."
    unstable = [row.name for row in rows if row.unstable]
    untrained = [row.name for row in rows if row.untrained]
    told = [f"Unstable times, see the notes: {', '.join(unstable)}."] if unstable else []
    told += [f"Untrained, random weights: what they answer means nothing: {', '.join(untrained)}."] if untrained else []
    return " ".join(told)


def _table(report: Report) -> Facts:
    found = columns(report)
    heads = ("engine", *("\n".join(column.head) for column in found))
    rows = [(name, *(column.cells[index] for column in found)) for index, name in enumerate(names(report))]
    return Facts(heads, rows, list(notes(report)))


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(called, _said(machine[key])) for key, called in _MACHINE.items() if machine.get(key)]


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items() if one not in (None, "", [], {}))
    return " ".join(map(_said, value)) if isinstance(value, (list, tuple)) else str(value)


def _accuracy(rows: Sequence[Row]) -> Section | None:
    """One plot per task; ``None`` where no row has both a time and a metric."""
    drawings, short = [], _short(names(Report({}, {}, rows)))
    for task, metric in primary_metrics(rows).items():
        points = []
        for row, name in zip(rows, short, strict=True):
            if row.measured and row.latency_ms and task in row.tasks:
                low, high = row.latency_ms.get("p50_ci") or (None, None)
                time = row.latency_ms["p50"]
                points.append(Point(name, time, row.tasks[task][metric.name], low, high, hollow=row.estimate))
        if points:
            title, better = f"{task}: {metric_title(metric, task, rows)}", metric.higher_is_better
            drawings.append(
                scatter(f"{task} against latency", points, "network, p50, ms", title, higher_is_better=better)
            )
    text = "Each point is an engine; its line is the confidence interval of the median. Up and left is better."
    return Section("Accuracy against latency", text, [Frame("", drawings=drawings)]) if drawings else None


def _short(found: Sequence[str]) -> list[str]:
    """Return the names without what all begin with, up to a point: 'openvino-int8' for 'emanet-rooms.openvino-int8'."""
    # An estimate or a row of PyTorch does not begin as the artifacts do: most are enough.
    starts = Counter(name.partition(".")[0] for name in found if "." in name)
    start, count = starts.most_common(1)[0] if starts else ("", 0)
    return [name.removeprefix(f"{start}.") if count > 1 else name for name in found]


def _latency(rows: Sequence[Row]) -> Section | None:
    plots = {what: list(_histograms(rows, what, *fields)) for what, fields in _SAMPLES.items()}
    frames = [Frame(what, drawings=drawings) for what, drawings in plots.items() if drawings]
    text = (
        "How often each time came. Each engine has an axis of its own; where a few calls took much longer than the "
        "rest, it ends before them, and they are in the last bin."
    )
    return Section("Latency", text, frames) if frames else None


def _histograms(rows: Sequence[Row], what: str, sample: str, field: str) -> Iterator[str]:
    for row in rows:
        values, spread = (row.samples_ms or {}).get(sample), getattr(row, field)
        if row.measured and values and spread:
            marks = {key: spread[key] for key in _PERCENTILES if spread.get(key)}
            most = np.percentile(values, (5, 95))
            end = max(float(most[1] + 2 * (most[1] - most[0])), *marks.values())
            extent = min(values), min(max(values), end)
            yield histogram(f"{row.name}, {what}", values, marks, extent)


def _stages(rows: Sequence[Row]) -> Section | None:
    timed = [row for row in rows if row.measured and row.stages_ms]
    stages = dict.fromkeys(stage for row in timed for stage in row.stages_ms or {})
    colours = {stage: index % SERIES for index, stage in enumerate(stages)}
    found = [Bar(row.name, row.stages_ms or {}, f"{sum((row.stages_ms or {}).values()):.4g} ms") for row in timed]
    if not found:
        return None
    drawing = bars("Median time of each stage", found, colours, "ms")
    return Section(
        "Stages", "The median of each stage of a call, one behind the other.", [Frame("", drawings=[drawing])]
    )


def _layers(rows: Sequence[Row]) -> Section | None:
    frames = []
    for row in rows:
        if not row.layers:
            continue
        total = row.layers["total_ms"] or 1.0
        branches = [
            Bar(branch["branch"], {"time": branch["ms"]}, f"{branch['ms']:.3g} ms, {branch['ms'] / total:.0%}")
            for branch in row.layers["branches"]
        ]
        top = [
            (layer["name"], layer["branch"], layer["kind"], layer["precision"], f"{layer['ms']:.3f}",
             f"{layer['ms'] / total:.1%}")
            for layer in row.layers["layers"][:_TOP]
        ]  # fmt: skip
        table = Facts(("layer", "branch", "kind", "precision", "ms", "share"), top)
        drawing = bars(f"{row.name}: time by branch", branches, {"time": 0}, "ms")
        more = len(row.layers["layers"]) - len(top)
        note = f"{row.layers['note']}{f' {more} more layers are in the json.' if more > 0 else ''}"
        frames.append(Frame(row.name, drawings=[drawing], tables=[table], note=note))
    text = "Where the time goes: by branch of the network, and the layers that take most of it."
    return Section("Layers", text, frames) if frames else None


def _audits(rows: Sequence[Row], audits: Mapping[str, Mapping[str, Any]]) -> Section | None:
    frames = []
    for row in rows:
        audit = audits.get(row.name)
        if not audit:
            continue
        timed = bool(audit["total"]["time"])
        share = "time" if timed else "layers"  # nothing has run while TensorRT compiled
        entries = [*audit["branches"].items(), ("total", audit["total"])]
        used = dict.fromkeys(precision for _, shares in entries for precision in shares[share])
        found = [
            Bar(branch, {name: 100 * part for name, part in shares[share].items()}, _products(shares["compute"]))
            for branch, shares in entries
        ]
        colours = {name: _COLOURS.get(name, SERIES - 1) for name in used}
        drawing = bars(f"{row.name}: precision by branch, share of {share}", found, colours, "%")
        note = f"Shares of {share}, by {audit.get('engine')} on {audit.get('machine') or 'no machine told'}."
        frames.append(Frame(row.name, drawings=[drawing], note=note))
    text = "What each branch really ran in when the artifact was built, and how many convolutions and products did."
    return Section("Precision by branch", text, frames) if frames else None


def _products(compute: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in compute.items()) or "none that multiplies"
