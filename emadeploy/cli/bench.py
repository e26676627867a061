"""`emadeploy bench`: speed, memory, power and accuracy of engines, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Artifacts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[ARTIFACT]...",
        help="Folders made by export. [default: the engines of emanet-rooms that this machine runs, built once]",
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="auto, cpu, gpu, jetson; or a Jetson by name (jetson-orin-nano-8gb, ...): an estimate."
    ),
]
Host = Annotated[
    str | None, typer.Option(metavar="USER@HOST", help="Measure there, over ssh; emadeploy must be installed there.")
]
BenchData = Annotated[
    str | None, typer.Option(metavar="DATA", help="Adds accuracy per task, e.g. on rooms:seed=7,count=64.")
]
Against = Annotated[str | None, typer.Option(metavar="ROW", help="Ratios are to this row. [default: the first]")]
Published = Annotated[bool, typer.Option("--published", help="Adds the network as published, in ONNX Runtime.")]
TorchModes = Annotated[
    list[str] | None, typer.Option("--torch", metavar="MODE", help="Adds PyTorch: eager, compile. Can be repeated.")
]
SingleTask = Annotated[bool, typer.Option("--single-task", help="Adds one network per task, run one after the other.")]
SingleTaskFrom = Annotated[
    str | None,
    typer.Option(metavar="CHECKPOINT", help="Of network stl, for --single-task. [default: random weights]"),
]
Layers = Annotated[bool, typer.Option("--layers", help="Adds times by layer and by branch.")]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Of every engine on a CPU. [default: cores]")]
WarmUp = Annotated[
    int | None, typer.Option("--warmup", metavar="N", min=0, help="Calls not timed. [default: until times are steady]")
]
Percentile = Annotated[
    int | None,
    typer.Option(
        metavar="50|90|99", help="As many calls as it needs: 11, 64, 662. [default: 90; without ARTIFACTs 50]"
    ),
]
MinTime = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0, help="That each engine runs at least; ratios get 20 times that to settle."),
]
Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(metavar="OLD.json NEW.json", help="Measure nothing: show what changed between two --json files."),
]


def command(
    artifacts: Artifacts = None,
    device: DeviceName = "auto",
    host: Host = None,
    data: BenchData = None,
    against: Against = None,
    published: Published = False,
    torch: TorchModes = None,
    single_task: SingleTask = False,
    single_task_from: SingleTaskFrom = None,
    layers: Layers = False,
    threads: Threads = None,
    warm_up: WarmUp = None,
    percentile: Percentile = None,
    min_time: MinTime = 3.0,
    compare: Compare = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here.")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with table and plots here.")
    ] = None,
) -> None:
    """Measure engines side by side: times, memory, power and accuracy, each in a process of its own."""
    from emadeploy.cli.bench_parts.order import BenchOrder, check_writable
    from emadeploy.cli.bench_parts.run import run

    check_writable("--json", json_file)
    check_writable("--html", html_file)
    order = BenchOrder(
        artifacts=tuple(artifacts or ()),
        device=device,
        threads=threads,
        data=data,
        against=against,
        published=published,
        torch=tuple(torch or ()),
        single_task=single_task,
        single_task_from=single_task_from,
        layers=layers,
        warm_up=warm_up,
        percentile=percentile,
        min_time_s=min_time,
    )
    run(order, host=host, compare=compare, json_file=json_file, html_file=html_file)
