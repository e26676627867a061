"""`emadeploy data convert` and `emadeploy data check`: raw layouts to ours, and a first look at any data."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from emadeploy.cli.options import parse_size


def convert(
    raw: Annotated[Path, typer.Argument(metavar="RAW", help="A raw NYUv2 or Cityscapes, as its makers publish it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make; one that is begun is continued.")],
    size: Annotated[str | None, typer.Option(metavar="HxW", help="[default: the paper's]")] = None,
    classes: Annotated[int | None, typer.Option(help="13 or 40 (NYUv2), 19 or 7 (Cityscapes).")] = None,
    splits: Annotated[Path | None, typer.Option(metavar="FILE", help="splits.mat of NYUv2 [default: in RAW].")] = None,
) -> None:
    """Convert a raw data set to the preprocessed layout, and say how each map was made."""
    from emadeploy.cli.progress import progress
    from emadeploy.data.convert import convert as convert_raw

    with progress(f"converting {raw}") as report:
        counted = _Counted(report)
        record = convert_raw(
            raw,
            output,
            size=None if size is None else parse_size(size),
            classes=classes,
            splits=splits,
            progress=counted,
        )
    for name, note in record.notes.items():
        print(f"{name}: {note}")
    height, width = record.size
    kind = record.classes if record.classes == "cityscapes-7" else record.dataset
    print(f"{counted.total} frames of {height} x {width}, {record.classes}: use {kind}:{output}")


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="E.g. nyuv2:DIR, folder:DIR or rooms:count=8.")],
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the record.")] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of frames and truths, a PNG.")
    ] = None,
) -> None:
    """Read every file of a data set, and tell what is in it; exits 1 where a file is corrupt."""
    from emadeploy.cli.progress import progress
    from emadeploy.contract.files import write_file
    from emadeploy.data.check import check as check_data
    from emadeploy.data.sheet import Sheet
    from emadeploy.data.source import open_data

    with progress(f"reading {data}") as report:
        dataset = open_data(data, split=split, progress=report)
        sheet = Sheet(dataset)
        record = check_data(dataset, report, sheet.look)
    _print(record)
    if as_json is not None:
        write_file(as_json, json.dumps(record, indent=2) + "\n")
    if picture is not None:
        write_file(picture, sheet.png())
    for problem in record["corrupt"]:
        print(f"corrupt: {problem}", file=sys.stderr)
    if record["corrupt"]:
        raise typer.Exit(1)


class _Counted:
    """Passes progress on, and keeps the number of all."""

    def __init__(self, report: Any) -> None:
        self.report, self.total = report, 0

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        self.report(done, total)


def _print(record: Mapping[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print(f"{record['data']}: frames {record['frames']}, corrupt {len(record['corrupt'])}")
    sizes = ", ".join(f"{size} ({count})" for size, count in record["sizes"].items())
    mean, std = (" ".join(f"{v:.3f}" for v in record["image"][name] or ()) for name in ("mean", "std"))
    print(f"image: {sizes or 'none'}; mean {mean or 'none'}, std {std or 'none'}")
    table = Table("task", "frames", "invalid", "what it holds", box=SIMPLE_HEAD)
    for name, task in record["tasks"].items():
        told = "; ".join(_told(task))
        table.add_row(*map(Text, (name, str(task["frames"]), _percent(task["invalid"]), told)))
    if record["tasks"]:
        Console(highlight=False).print(table)


def _told(task: Mapping[str, Any]) -> Iterator[str]:
    for key, value in task.items():
        if key == "classes":
            yield ", ".join(f"{name} {_percent(share)}" for name, share in value.items())
        elif key in ("not_unit", "positive"):
            yield f"{key.replace('_', ' ')} {_percent(value)}"
        elif key not in ("frames", "invalid"):
            numbers = value if isinstance(value, list) else [value]
            yield f"{key} {' '.join(v if isinstance(v, str) else _number(v) for v in numbers)}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
