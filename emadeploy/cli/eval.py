"""`emadeploy eval`: the metrics of a checkpoint or an artifact, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emadeploy.contract.spec import ModelSpec

if TYPE_CHECKING:
    from rich.table import Table


def command(
    network: Annotated[Path, typer.Argument(metavar="CHECKPOINT|ARTIFACT", help="A folder made by train or export.")],
    data: Annotated[str, typer.Option(help="Data with truth, e.g. rooms:seed=7,count=64 or nyuv2:DIR.")],
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    baseline: Annotated[Path | None, typer.Option(metavar="JSON", help="An earlier --json: adds delta_m.")] = None,
    over: Annotated[str, typer.Option(help="delta_m over the primary metric of each task, or the mean.")] = "primary",
    edges: Annotated[
        str | None,
        typer.Option(metavar="odsf|f1", help="How edges are judged; odsf needs scipy, and is the default with it."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the metrics here.")] = None,
) -> None:
    """Measure the accuracy per task, and the gain over a baseline."""
    from rich.console import Console

    from emadeploy.cli.network import open_network
    from emadeploy.cli.progress import progress
    from emadeploy.data.source import open_data
    from emadeploy.evaluate.metrics import default_edges
    from emadeploy.evaluate.records import check_same_data, read_record, with_gain, write_record
    from emadeploy.evaluate.run import evaluate
    from emadeploy.runtime.machine import usable_cores

    base = read_record(baseline) if baseline else None
    opened = open_network(network)
    for note in opened.notes:
        print(f"note: {note}")
    with progress("rendering") as report:
        dataset = open_data(data, split=split, workers=usable_cores(), progress=report)
    if base is not None:
        check_same_data(base, dataset.description, len(dataset))
    with progress("evaluating") as report:
        record = evaluate(opened.predict, dataset, opened.spec.tasks, report, edges or default_edges())
    if base is not None:
        record = with_gain(record, base, over)
    if json_file is not None:
        write_record(json_file, record)
    Console().print(_table(record, opened.spec, base))
    _print_rest(record, opened.spec)


def _table(record: Mapping[str, Any], spec: ModelSpec, base: Mapping[str, Any] | None) -> Table:
    from rich.table import Table

    from emadeploy.evaluate.metrics import metrics_in

    columns = ["task", "metric", "value", "unit", "better"] + (["baseline", "gain, %"] if base else [])
    table = Table(*columns, title=f"{spec.name} on {record['data']} ({record['frames']} frames)", title_justify="left")
    for task, row in record["tasks"].items():
        found = metrics_in(task, row)
        for metric in found:
            unit = spec.task(task).unit if metric.unit == "unit" else metric.unit
            first = metric is found[0]
            cells = [task if first else "", metric.name, f"{row[metric.name]:.4g}", unit or ""]
            cells.append("higher" if metric.higher_is_better else "lower")
            if base:
                before = base["tasks"][task].get(metric.name)
                cells.append("" if before is None else f"{before:.4g}")
                cells.append(f"{record['gains'][task]:+.2f}" if first else "")
            table.add_row(*cells, end_section=metric is found[-1])
    if base:
        table.add_row("all", f"delta_m, {record['delta_m_over']}", "", "%", "higher", "", f"{record['delta_m']:+.2f}")
    return table


def _print_rest(record: Mapping[str, Any], spec: ModelSpec) -> None:
    unjudged = [name for name in spec.task_names if name not in record["tasks"]]
    if unjudged:
        print(f"not judged, the data has no truth for them: {', '.join(unjudged)}")
    partly = {name: count for name, count in record["task_frames"].items() if 0 < count < record["frames"]}
    if partly:
        print("frames with truth: " + ", ".join(f"{name} {count}" for name, count in partly.items()))
    if "edge" in record["tasks"] and "odsf" not in record["tasks"]["edge"]:
        print("edge: f1 counts pixels where they are; --edges odsf matches them: pip install 'emadeploy[eval]'")
    if "delta_m" in record:
        gains = ", ".join(f"{task} {gain:+.2f} %" for task, gain in record["gains"].items())
        print(f"delta_m over the {record['delta_m_over']}: {record['delta_m']:+.2f} % ({gains})")
