"""The tables of a comparison for the terminal, and the lines under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emadeploy.contract.spec import ModelSpec, TaskSpec
from emadeploy.evaluate.metrics import METRICS
from emadeploy.evaluate.parity import MEASURES

if TYPE_CHECKING:
    from rich.table import Table


def tables(record: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[Table]:
    """Yield the agreement of the two, then, where the data has truth, the metrics of both side by side."""
    from rich.text import Text

    # Text, because paths may hold the brackets of rich's markup.
    title = Text(f"A  {record['a']}\nB  {record['b']}, taken as true\non {record['data']} ({record['frames']} frames)")
    yield _parity(record["parity"], title)
    if record["tasks"]["a"]:
        yield _metrics(record["tasks"], tasks)


def notes(record: Mapping[str, Any], a: ModelSpec, b: ModelSpec) -> Iterator[str]:
    """Yield what was left out, and why."""
    for mine, others, whose in ((a, b, "A"), (b, a, "B")):
        alone = [name for name in mine.task_names if name not in others.task_names]
        if alone:
            yield f"not compared, {whose} alone has them: {', '.join(alone)}"
    unjudged = [name for name in record["parity"] if name not in record["tasks"]["a"]]
    if unjudged:
        yield f"not judged, the data has no truth for them: {', '.join(unjudged)}"


def _parity(parity: Mapping[str, Mapping[str, float]], title: Any) -> Table:
    from rich.table import Table

    table = Table("task", "A and B agree", "value", "unit", title=title, title_justify="left")
    for task, row in parity.items():
        for index, (name, value) in enumerate(row.items()):
            what, unit = MEASURES[name]
            table.add_row("" if index else task, what, f"{value:.6g}", unit, end_section=index == len(row) - 1)
    return table


def _metrics(metrics: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Table:
    from rich.table import Table

    columns = ("task", "metric", "A", "B", "A - B", "unit", "better")
    table = Table(*columns, title="against the truth of the data", title_justify="left")
    for task in tasks:
        rows = [metrics[which].get(task.name) for which in ("a", "b", "difference")]
        for metric in METRICS[task.kind] if rows[0] else ():
            first, last = metric is METRICS[task.kind][0], metric is METRICS[task.kind][-1]
            a, b, difference = (row[metric.name] for row in rows)
            unit = task.unit if metric.unit == "unit" else metric.unit
            table.add_row(
                task.name if first else "",
                metric.name,
                f"{a:.4g}",
                f"{b:.4g}",
                f"{difference:+.2g}" if difference else "0",
                unit or "",
                "higher" if metric.higher_is_better else "lower",
                end_section=last,
            )
    return table
