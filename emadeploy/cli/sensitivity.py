"""`emadeploy sensitivity`: where int8 hurts which task."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emadeploy.cli.options import CalibData, SourceName, requires
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.manifest import TARGETS, parse_target

if TYPE_CHECKING:
    from emadeploy.calibrate.sensitivity import SensitivityTable
    from emadeploy.cli.exporting.order import Order
    from emadeploy.contract.spec import TaskSpec
    from emadeploy.data.sample import Dataset, Sample


def command(
    source: SourceName = None,
    target: Annotated[str, typer.Option(help="An int8 target that runs on this machine.")] = "openvino-int8",
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Held-out data with truth to judge on. [default: rooms]")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Judge on the first N of them. [default: all]")
    ] = None,
    calib_data: CalibData = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only each section alone in int8, not each left out: half the time.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the table here.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a heat map here.")] = None,
) -> None:
    """Measure how much each section of the network costs each task in int8."""
    with requires("quantisation", "export"):
        from emadeploy.cli.exporting.order import Order
        from emadeploy.evaluate.records import write_record

    from rich.console import Console

    from emadeploy.contract.files import write_file

    for path in (json_file, picture):
        _check_place(path)
    table = measure(source, Order(target=target, data=data, calib_data=calib_data), frames, quick=quick)
    Console().print(table.table(f"drops in {table.facts['target']}, {table.facts['frames']} frames"))
    if json_file is not None:
        write_record(json_file, table.to_dict())
    if picture is not None:
        write_file(picture, table.picture())


def measure(name: str | None, order: Order, frames: int | None, *, quick: bool) -> SensitivityTable:
    """Return the harm of every section of the network that ``name`` says; ``frames``: how many of the data to judge on.

    Raises any EmadeployError; SpecError for a target that is not int8.
    """
    from emadeploy.calibrate.recipe import load_recipe
    from emadeploy.calibrate.sensitivity import sensitivity
    from emadeploy.cli.exporting.int8 import Int8
    from emadeploy.cli.exporting.judge import open_judge
    from emadeploy.cli.exporting.make import calibration_frames
    from emadeploy.cli.progress import progress
    from emadeploy.export.source import open_source
    from emadeploy.export.stage import Wanted, export_graph

    target = parse_target(order.target)
    if TARGETS[target][1] != "int8":
        known = ", ".join(name for name, (_, precision) in TARGETS.items() if precision == "int8")
        raise SpecError(f"target {target} has nothing in int8 that could do harm; int8 targets: {known}")
    recipe = load_recipe(target, order.recipe).resolved()
    source = open_source(name)
    calibration = calibration_frames(source.spec, order, recipe)
    judge = open_judge(source, order, recipe)
    assert judge is not None  # only an order that says so goes without
    if frames is not None:
        judge = replace(judge, data=First(judge.data, frames))
    with tempfile.TemporaryDirectory(prefix="emadeploy-") as scratch:
        folder = Path(scratch)
        graph = export_graph(source, Wanted(low_precision=True), folder / "graph", frames=calibration)
        int8 = Int8(graph, calibration, recipe, target, folder, print)
        reference = judge.reference(source, graph.model.task_names, folder, print)
        facts = {"model": source.spec.name, "target": target, "data": judge.data.description}
        print(f"measuring {target} on {judge.data.description} ({len(judge.data)} frames), section by section")
        with progress("sections") as bar:
            return sensitivity(
                int8.units,
                lambda keep: int8.measure(keep, judge.data),
                int8.probe,
                judge.budgets,
                reference["tasks"],
                without=not quick,
                facts={**facts, "frames": len(judge.data), "calibration": calibration.facts()},
                progress=bar,
            )


@dataclass(frozen=True)
class First:
    """The first ``count`` samples of a data set, or all where it has fewer."""

    data: Dataset
    count: int

    @property
    def description(self) -> str:
        """What it is, with the number, so that it is not taken for the whole."""
        return f"{self.data.description}, the first {len(self)}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that samples have a truth for."""
        return self.data.tasks

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """What the truths are."""
        return self.data.specs

    def __len__(self) -> int:
        return min(self.count, len(self.data))

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self):
            raise IndexError(index)
        return self.data[index]


def _check_place(path: Path | None) -> None:
    """Raise DataError where a file could not be written in the end: measuring takes long."""
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}")
