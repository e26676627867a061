"""What an int8 engine is judged by: held-out frames with truth, the float network's metrics on them, and budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emadeploy.calibrate.budgets import Budgets, parse_budgets
from emadeploy.calibrate.outcome import BudgetError, Outcome
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.search import keep_within
from emadeploy.cli.exporting.ahead import open_now
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.order import Order
from emadeploy.cli.exporting.portable import MEASURED_IN, PORTABLE
from emadeploy.cli.exporting.reference import MEASURED, evaluated, float32_record
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.manifest import TARGETS, Manifest, parse_target
from emadeploy.contract.meaning import check_truths
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset
from emadeploy.export.source import Source

Report = Callable[[str], None]

#: Held-out rooms that judge a model trained on rooms, where nobody says what does.
ROOMS = 200
#: Fewer for what is judged in a stand-in, which is several times slower than the engine that it stands for.
ROOMS_FOR_STAND_IN = 40
COUNTS = (ROOMS_FOR_STAND_IN, ROOMS)
NOT_JUDGED = "none"
_BY_HAND = f"give labelled DATA with --data, or go without judgement with --max-drop {NOT_JUDGED}"


@dataclass(frozen=True)
class Judge:
    """Frames with truth, the budgets per task, and how many evaluations a search may take.

    ``usual``: whether the frames are of the same kind as those that calibrate, other frames of one source.
    """

    data: Dataset
    budgets: Budgets
    evaluations: int
    usual: bool = False

    def reference(self, source: Source, tasks: tuple[str, ...], folder: Path, report: Report) -> dict[str, Any]:
        """Return the record of the network in float32, CTAL exact, on the data (`float32_record`)."""
        return float32_record(source, tasks, self.data, folder, report)

    def keep_within_budgets(self, int8: Int8, source: Source, report: Report) -> Manifest:
        """Make the artifact of ``int8`` that keeps the budgets with the least in higher precision; return its manifest.

        Prints the table. Raises BudgetError, having printed the nearest, where no such artifact exists.
        """
        from rich.console import Console

        reference = self.reference(source, int8.graph.model.task_names, int8.folder, report)
        report(
            f"evaluating int8 on {self.data.description} ({len(self.data)} frames), at most {self.evaluations} times"
        )
        try:
            with progress("keeping the budgets") as bar:
                outcome = keep_within(
                    int8.units,
                    lambda keep: int8.measure(keep, self.data),
                    int8.probe,
                    self.budgets,
                    reference["tasks"],
                    evaluations=self.evaluations,
                    progress=bar,
                )
        except BudgetError as error:
            Console().print(error.table())
            raise
        manifest = int8.build(outcome.nodes)
        if outcome.kept:  # tried out until now; what counts is what was built
            outcome = outcome.confirmed(reference["tasks"], int8.measure(outcome.nodes, self.data))
        manifest = self._described(int8, manifest, outcome, reference)
        manifest.write(int8.artifact)
        Console().print(outcome.table())
        return manifest

    def holds_in_float(self, int8: Int8, source: Source, report: Report) -> bool:
        """Whether every budget holds for the graph of ``int8`` before it is quantised: is rounding what does harm?"""
        int8.close()  # what was tried out last: done with, and its files are written anew where this says no
        reference = self.reference(source, int8.graph.model.task_names, int8.folder, report)
        record = evaluated(int8.in_float, self.data, "evaluating the graph in float32")
        return not self.budgets.over(reference["tasks"], record["tasks"])

    def _described(self, int8: Int8, manifest: Manifest, outcome: Outcome, reference: dict[str, Any]) -> Manifest:
        assert manifest.calibration is not None
        judged: dict[str, Any] = {"data": self.data.description, "frames": len(self.data)}
        if not manifest.compiled:
            judged["measured_in"] = MEASURED_IN[manifest.rest]
        calibration = {
            **manifest.calibration,
            "budget": outcome.to_dict(),
            "parity_with_float": {"frames": int8.frames.description, "tasks": int8.parity()},
        }
        float32 = {"float32": reference["tasks"], "float32_measured": reference[MEASURED]}
        accuracy = {**judged, "tasks": dict(outcome.metrics), **float32}
        return replace(manifest, calibration=calibration, accuracy=accuracy)


def open_judge(
    source: Source, order: Order, recipe: Recipe, opened: Callable[[str], Dataset] | None = None
) -> Judge | None:
    """Return what judges an export; ``None`` where nothing shall: 'none' was asked for, or the weights are random.

    ``opened`` opens DATA, by default `open_now`. Raises SpecError for budgets that make no sense, CalibrationError
    where there is no data with truth, DataError for truth that means something else than the model's answers.
    """
    if order.max_drop == NOT_JUDGED or order.untrained:
        if order.data is not None:
            why = "random weights" if order.untrained else f"--max-drop {NOT_JUDGED}"
            raise CalibrationError(f"--data {order.data}: nothing is judged with {why}; leave it out")
        return None
    tasks = order.wanted.tasks or source.spec.task_names
    budgets = parse_budgets(order.max_drop, tasks, recipe.budgets)
    text = order.data or _default_data(source, order)
    data = (opened or open_now)(text)
    untold = [task for task in budgets.tasks if task not in data.tasks]
    if untold:
        raise CalibrationError(f"{data.description} has no truth for {', '.join(untold)}: {_BY_HAND}")
    check_truths(data.specs, map(source.spec.task, tasks), data.description)
    # Rooms judge a model of rooms, also where pictures of another place calibrate it.
    usual = order.data is None and (order.calib_data is None or text == order.calib_data)
    return Judge(data, budgets, recipe.evaluations, usual)


def rooms_of(spec: ModelSpec, count: int) -> str:
    """Return DATA: the first ``count`` rooms that judge a model of the size of ``spec``."""
    height, width = spec.input.size
    return f"rooms:seed=7,count={count},size={height}x{width}"


def _default_data(source: Source, order: Order) -> str:
    if source.spec.data == "rooms":
        return rooms_of(
            source.spec, ROOMS_FOR_STAND_IN if TARGETS[parse_target(order.target)][0] in PORTABLE else ROOMS
        )
    if order.calib_data is not None:
        return order.calib_data
    raise CalibrationError(f"model {source.spec.name!r}: nothing to judge int8 by; {_BY_HAND}")
