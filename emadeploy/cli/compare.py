"""`emadeploy compare`: do two artifacts or checkpoints answer the same, task by task, and where do they not?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emadeploy.contract.errors import DataError, SpecError

_PICTURES = 4


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help="An artifact or a checkpoint.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another; it is the one taken as true.")],
    data: Annotated[str, typer.Option(help="Frames for both, e.g. rooms:seed=7,count=64 or images:DIR.")],
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Show where they differ, in this new folder.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"Pictures per task: the frames that differ most. [default: {_PICTURES}]"
        ),
    ] = None,
) -> None:
    """Compare two artifacts or checkpoints, task by task: how far they agree, and the metrics of each."""
    from rich.console import Console

    from emadeploy.cli import network
    from emadeploy.cli.compare_parts.gallery import Gallery, make_place
    from emadeploy.cli.compare_parts.table import notes, tables
    from emadeploy.cli.progress import progress
    from emadeploy.data.source import open_data
    from emadeploy.evaluate.compare import common_tasks, compare
    from emadeploy.evaluate.records import write_record
    from emadeploy.runtime.machine import usable_cores

    _check(json_file, pictures, frames)
    opened_a, opened_b = network.open_network(a), network.open_network(b)
    tasks = common_tasks(opened_a.spec, opened_b.spec)
    if pictures is not None:
        make_place(pictures)
    with progress("rendering") as report:
        dataset = open_data(data, split=split, workers=usable_cores(), progress=report)
    gallery = None if pictures is None else Gallery(frames or _PICTURES, tasks, (a, b))
    with progress("comparing") as report:
        look = None if gallery is None else gallery.look
        compared = compare(opened_a.predict, opened_b.predict, dataset, tasks, report, look)
    record = {"schema": compared["schema"], "a": str(a), "b": str(b), **compared}
    if json_file is not None:
        write_record(json_file, record)
    if gallery is not None and pictures is not None:
        gallery.write(pictures, record)
    for table in tables(record, tasks):
        Console().print(table)
    for line in (*notes(record, opened_a.spec, opened_b.spec), *([f"pictures: {pictures}"] if pictures else [])):
        print(line)


def _check(json_file: Path | None, pictures: Path | None, frames: int | None) -> None:
    """Refuse what cannot be answered, before the work."""
    if frames is not None and pictures is None:
        raise SpecError(f"--frames {frames} says how many pictures to write, but not where; add --pictures DIR")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise DataError(f"{json_file.parent} is not a folder; --json needs one that exists")
