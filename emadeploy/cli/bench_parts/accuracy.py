"""The accuracy of the rows: the same evaluation as `emadeploy eval`, of the same artifacts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from emadeploy.bench.rows import Row
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import DataError, EmadeployError, one_line
from emadeploy.contract.preprocess import UInt8
from emadeploy.data.sample import Dataset
from emadeploy.data.source import open_data
from emadeploy.evaluate.metrics import default_edges
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime import load
from emadeploy.runtime.machine import usable_cores


@dataclass(frozen=True, eq=False)
class Judge:
    """Data with truth, and the threads to run on."""

    data: Dataset
    threads: int | None

    @classmethod
    def open(cls, order: BenchOrder) -> Judge | None:
        """Return the judge that is ordered, ``None`` for none. Raises DataError where it holds no frame or no truth."""
        if order.data is None:
            return None
        with progress("rendering") as bar:
            data = open_data(order.data, split="val", workers=usable_cores(), progress=bar)
        if not len(data) or not data.tasks:
            what = "no frame" if not len(data) else "no truth"
            raise DataError(f"--data {order.data} holds {what}: give data with labels, e.g. rooms:seed=7,count=64")
        return cls(data, order.threads)

    @property
    def frame(self) -> UInt8:
        """The first frame."""
        return self.data[0].image

    def judged(self, row: Row, device: str | None) -> Row:
        """Return ``row`` with its metrics by task; a row that was not measured, or is no artifact, as it is.

        What fails here becomes the row's status: what was asked for and is not there is no success.
        """
        # What a process of its own could not hold must not take this one with it.
        if not row.measured or row.artifact is None:
            return row
        try:
            with (
                load(Path(row.artifact), device=device, threads=self.threads) as perception,
                progress(f"evaluating {row.name}") as bar,
            ):
                tasks, edges = perception.spec.tasks, default_edges()
                record = evaluate(lambda frame: perception(frame).maps, self.data, tasks, bar, edges)
        except EmadeployError as error:
            return replace(row, status=f"failed: its accuracy: {type(error).__name__}: {one_line(error)}")
        units = {task.name: task.unit for task in tasks if task.unit}
        return replace(row, tasks=record["tasks"], units=units, data=f"{record['data']} ({record['frames']} frames)")
