"""`emadeploy build`: compile a portable artifact into a TensorRT engine for the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    int | None,
    typer.Option(metavar="MIB", min=1, help="Memory a layer may use. [default: on a Jetson a quarter of what is free]"),
]
Level = Annotated[
    int | None,
    typer.Option("--optimization-level", metavar="N", min=0, max=5, help="0 builds fast, 5 runs fast. [default: 3]"),
]
Dla = Annotated[
    int | None, typer.Option(metavar="CORE", min=0, help="Run what it can on this DLA core, the rest on the GPU.")
]
Capability = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="trt-rtx: build for GPUs of these, e.g. 8.9,12.0, without one here."),
]


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by export for trt-*.")],
    workspace: Workspace = None,
    level: Level = None,
    dla: Dla = None,
    compute_capability: Capability = None,
    force: Annotated[bool, typer.Option("--force", help="Build again what is built already.")] = False,
) -> None:
    """Compile a TensorRT artifact on its device, and say what its layers run in."""
    from emadeploy.build.tensorrt_engine import compile_artifact
    from emadeploy.runtime.trt.compiling import Options

    capabilities = tuple(part.strip() for part in (compute_capability or "").split(",") if part.strip())
    options = Options(workspace, level, dla, capabilities)
    with _bar() as report:
        built = compile_artifact(artifact, options, report, force=force)
    record = built.record
    runs_on = record.key.describe()
    if not built.fresh:
        print(f"{artifact} is built already, for {runs_on}; --force builds it again")
        return
    print(f"built {artifact / record.plan} in {record.seconds:.1f} s, {record.bytes / 1e6:.1f} MB, for {runs_on}")
    for branch, precision in built.manifest.precision.items():
        print(f"  {branch}: {precision}")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far it is, or for how long it has run where TensorRT does not tell; gone after the block."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=None)
        yield lambda phase, done, total: bar.update(task, description=phase, completed=done, total=total)
