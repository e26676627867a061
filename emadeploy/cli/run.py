"""`emadeploy run`: an artifact on a picture, a folder of pictures or a video."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emadeploy.contract.errors import DataError
from emadeploy.contract.manifest import Manifest

if TYPE_CHECKING:
    from emadeploy.robotics.process import Summary


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by export.")],
    source: Annotated[
        str,
        typer.Option(metavar="FILE|DIR|VIDEO|camera:0", help="A picture, a folder, a video, a camera, or rtsp://..."),
    ],
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the maps of every frame here.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="[default: the cores of this machine]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.")] = False,
) -> None:
    """Run an artifact on every frame of a source; a frame that cannot be used is named, and the rest still done."""
    from emadeploy import load
    from emadeploy.cli.progress import progress
    from emadeploy.robotics.process import process
    from emadeploy.robotics.sources import open_source

    frames = open_source(source)
    with load(artifact, threads=threads) as perception:
        if perception.manifest.untrained:
            _say(f"{artifact} is untrained: its timings count, its maps mean nothing")
        with progress("running") as report:
            summary = process(perception, frames, save, on_frame=report, on_bad=_say)
        _print(summary, perception.manifest, source, save, as_json=as_json)
    if summary.bad:
        total = summary.frames + len(summary.bad)
        raise DataError(f"{len(summary.bad)} of {total} frames of {source} could not be used; they are named above")


def _say(message: str) -> None:
    print(f"emadeploy: {message}", file=sys.stderr)


def _print(summary: Summary, manifest: Manifest, source: str, save: Path | None, *, as_json: bool) -> None:
    if as_json:
        record = {
            "schema": 1,
            "source": source,
            "target": manifest.target,
            "untrained": manifest.untrained,
            "frames": summary.frames,
            "stages_ms": summary.median_ms,
            "bad": summary.bad,
            "saved": None if save is None else str(save),
        }
        print(json.dumps(record))
        return
    from rich.console import Console
    from rich.table import Table

    print(f"{manifest.model.name}, {manifest.target}: {summary.frames} frames of {source}")
    table = Table("stage", "median ms")
    for stage, ms in summary.median_ms.items():
        table.add_row(stage, f"{ms:.1f}")
    if summary.frames:
        Console().print(table)
    if save is not None and summary.frames:
        print(f"maps: {save}")
