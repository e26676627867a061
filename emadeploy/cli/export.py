"""`emadeploy export`: from a checkpoint to an artifact that the runtime loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emadeploy.cli.options import Size, parse_size, requires

FrameSize = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Take uint8 frames of this size: resizing and decoding happen in the graph."),
]


def command(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[CHECKPOINT|NAME]", help="[default: the newest under runs/, else emanet-rooms]"),
    ] = None,
    target: Annotated[str, typer.Option(help="Engine and precision, e.g. onnxruntime-fp32.")] = "onnxruntime-fp32",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="[default: NAME.TARGET]")] = None,
    ctal: Annotated[
        str | None, typer.Option(help="exact (linear), or affinity (as published). [default: exact]")
    ] = None,
    tasks: Annotated[str | None, typer.Option(metavar="A,B", help="Answer these tasks alone. [default: all]")] = None,
    size: Size = None,
    frame_size: FrameSize = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Random weights, for speed alone.")] = False,
) -> None:
    """Export a network for an engine; the artifact is checked against PyTorch, task by task."""
    with requires("export", "export"):
        from emadeploy.export.stage import Wanted, make_artifact

    wanted = Wanted(
        ctal=ctal,
        tasks=None if tasks is None else tuple(task.strip() for task in tasks.split(",") if task.strip()),
        frame_size=None if frame_size is None else parse_size(frame_size),
    )
    image_size = None if size is None else parse_size(size)
    make_artifact(source, target, output, wanted, size=image_size, untrained=untrained)
