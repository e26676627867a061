"""`emadeploy run`: an artifact on a picture, a folder of pictures, a video, a recorded robot or a camera."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emadeploy.contract.errors import DataError
from emadeploy.contract.manifest import Manifest

if TYPE_CHECKING:
    from emadeploy.robotics.health import Checkup
    from emadeploy.robotics.process import Summary


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by export.")],
    source: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR|VIDEO|camera:0|BAG[:topic]",
            help="A picture, a folder, a video, a ROS bag or .mcap, a camera, or rtsp://...",
        ),
    ],
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE.mcap", help="Write the maps of every frame here: files, or a ROS 2 recording."),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="screen|FILE", help="Show them in rerun, or write FILE.rrd for it; FILE.mjpeg or .mp4: a film."
        ),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(metavar="FX,FY,CX,CY[@WxH]|fov:DEG", help="The camera, for points [default: what the bag tells]."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="[default: the cores of this machine]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.")] = False,
) -> None:
    """Run an artifact on every frame of a source; a frame that cannot be used is named, and the rest still done.

    Where maps stop to fit together as they did on the frames of the export, a warning says at which frame.
    """
    from emadeploy import load
    from emadeploy.cli.progress import progress
    from emadeploy.robotics.health import Checkup
    from emadeploy.robotics.process import process
    from emadeploy.robotics.sinks import open_sinks
    from emadeploy.robotics.sources import open_source

    frames = open_source(source)
    with load(artifact, threads=threads) as perception:
        if perception.manifest.untrained:
            _say(f"{artifact} is untrained: its timings count, its maps mean nothing")
        sinks = open_sinks(perception.spec.tasks, save=save, view=view, intrinsics=intrinsics, say=_say)
        checkup = None if perception.manifest.health is None else Checkup(perception, _say)
        if checkup is not None:
            sinks.append(checkup)
        with progress("running") as report:
            summary = process(perception, frames, sinks, on_frame=report, on_bad=_say)
        _print(summary, checkup, perception.manifest, source, save, as_json=as_json)
    if summary.bad:
        total = summary.frames + summary.lost
        raise DataError(f"{summary.lost} of {total} frames of {source} could not be used; they are named above")


def _say(message: str) -> None:
    print(f"emadeploy: {message}", file=sys.stderr)


def _print(
    summary: Summary, checkup: Checkup | None, manifest: Manifest, source: str, save: Path | None, *, as_json: bool
) -> None:
    health = None if checkup is None else checkup.to_dict()
    if as_json:
        record = {
            "schema": 1,
            "source": source,
            "target": manifest.target,
            "untrained": manifest.untrained,
            "frames": summary.frames,
            "stages_ms": summary.median_ms,
            "bad": summary.bad,
            "health": health,
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
    if health is not None and health["median"] is not None:
        print(f"health: {health['median']:.2f}; on known frames {health['low']:.2f} to {health['high']:.2f}")
    if save is not None and summary.frames:
        print(f"maps: {save}")
