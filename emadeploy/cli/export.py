"""`emadeploy export`: from a checkpoint to an artifact that the runtime loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from emadeploy.cli.exporting import layout as triton
from emadeploy.cli.options import CalibData, Size, SourceName, parse_size, requires

FrameSize = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Take uint8 frames of this size: resizing and decoding happen in the graph."),
]
CtalForm = Annotated[
    str | None,
    typer.Option(
        metavar="FORM",
        help="exact (linear); basis or basis:R (few kernels, chosen on calibration frames; faster); "
        "affinity (as published). [default: exact]",
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        metavar="TASK=DROP,...",
        help="int8: how much worse each task may get, e.g. semseg=1.0,depth=2%,normals=0.5deg; layers go back to "
        "higher precision until that holds. none: do not judge. [default: the recipe's, of that size]",
    ),
]

Layout = Annotated[
    str,
    typer.Option(
        metavar="LAYOUT",
        help="artifact; or triton: models in the Triton repository -o (default: model_repository), where SOURCE may be "
        "an artifact too.",
    ),
]


def command(
    source: SourceName = None,
    target: Annotated[
        str | None, typer.Option(help="Engine and precision, e.g. openvino-int8. [default: onnxruntime-fp32]")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="[default: NAME.TARGET]")] = None,
    calib_data: CalibData = None,
    calib_frames: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many of them. [default: the recipe's]")
    ] = None,
    ctal: CtalForm = None,
    basis_error: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="basis: largest error of an attended map. [default: 2]")
    ] = None,
    max_drop: MaxDrop = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="int8: held-out data with truth to judge on. [default: rooms]")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="YAML", help="int8: in place of calibration/recipes/TARGET.yml.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(metavar="A,B", help="Answer these tasks alone. [default: all]")] = None,
    size: Size = None,
    frame_size: FrameSize = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Random weights, for speed alone.")] = False,
    layout: Layout = "artifact",
    instances: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="triton: how many of it run at a time. [default: 1]")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="triton, onnxruntime-*: gather up to N frames. [default: one frame a request]"
        ),
    ] = None,
) -> None:
    """Export a network for an engine; the artifact is checked against PyTorch, and int8 judged task by task."""
    given = [name for name, value in locals().items() if value not in (None, False)]
    serving = triton.Serving(instances, max_batch)
    if layout == "triton" and triton.is_artifact(source):
        triton.lay_out(Path(str(source)), output, serving, given)
        return
    target = target or "onnxruntime-fp32"
    triton.check(layout, target, serving)
    with requires("export", "export"):
        from emadeploy.cli.exporting.make import make_artifact
        from emadeploy.cli.exporting.order import Order
        from emadeploy.export.stage import Wanted

    wanted = Wanted(
        ctal=ctal,
        tasks=None if tasks is None else tuple(task.strip() for task in tasks.split(",") if task.strip()),
        frame_size=None if frame_size is None else parse_size(frame_size),
        basis_error=None if basis_error is None else basis_error / 100,
    )
    order = Order(
        target=target,
        output=output,
        wanted=wanted,
        size=None if size is None else parse_size(size),
        untrained=untrained,
        calib_data=calib_data,
        calib_frames=calib_frames,
        recipe=recipe,
        max_drop=max_drop,
        data=data,
    )
    if layout == "triton":
        triton.export_into(output, serving, lambda place: make_artifact(source, replace(order, output=place)))
    else:
        make_artifact(source, order)
