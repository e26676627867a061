"""The one set of metrics: training, `eval`, calibration and bench judge decoded maps with it.

Predictions and truth share the conventions of :mod:`emadeploy.contract.outputs`, and their height and width. Truth
that is not to be judged: 255 in semseg, human_parts, edge and saliency (the last two being uint8 0 or 1), 0 in depth,
(0, 0, 0) in normals. What each metric is, to the pixel, stands in :mod:`emadeploy.evaluate.tallies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.tallies import TALLIES, Array, Tally

#: Metrics by task and name, as `eval --json` writes them under "tasks".
TaskMetrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Metric:
    """A metric of a task: which direction is better, its ``unit`` ('' for a ratio, 'unit' for the task's own).

    ``in_mean``: whether it takes part in the multi-task gain over all metrics of a task.
    """

    name: str
    higher_is_better: bool
    unit: str
    in_mean: bool = True


#: The metrics of each kind of task. The first is its primary one.
METRICS: dict[str, tuple[Metric, ...]] = {
    "semseg": (Metric("miou", True, "%"), Metric("pixel_accuracy", True, "%")),
    "depth": (
        Metric("abs", False, "unit"),
        Metric("rel", False, ""),
        Metric("rmse", False, "unit"),
        Metric("delta1", True, "%", in_mean=False),
        Metric("delta2", True, "%", in_mean=False),
        Metric("delta3", True, "%", in_mean=False),
    ),
    "normals": (
        Metric("mean", False, "deg"),
        Metric("median", False, "deg", in_mean=False),
        Metric("within_11_25", True, "%"),
        Metric("within_22_5", True, "%"),
        Metric("within_30", True, "%"),
    ),
    "edge": (Metric("f1", True, "%"),),
    "saliency": (Metric("maxf", True, "%"),),
    "human_parts": (Metric("miou", True, "%"),),
}


class Metrics:
    """Metrics of several tasks, added up frame by frame. It can be pickled, and merged with those of other devices.

    >>> metrics = Metrics(spec.tasks)
    >>> for sample in dataset:
    ...     metrics.update(predict(sample.image), sample.truth)
    >>> metrics.compute()["depth"]["rel"]
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self.tasks = tuple(tasks)
        self._tallies: dict[str, Tally] = {task.name: TALLIES[task.kind](task) for task in self.tasks}

    def update(self, predicted: Mapping[str, Array], truth: Mapping[str, Array]) -> None:
        """Add one frame: decoded maps and their truth by task, at the same height and width.

        A task that ``truth`` lacks is skipped. Raises DataError where the prediction lacks a task that has a truth,
        where shapes differ, or where values break the conventions.
        """
        for name, tally in self._tallies.items():
            if name not in truth:
                continue
            if name not in predicted:
                raise DataError(f"the prediction has no {name!r}; it has {', '.join(predicted) or 'no map at all'}")
            if predicted[name].shape != truth[name].shape:
                raise DataError(f"{name}: the prediction has shape {predicted[name].shape}, truth {truth[name].shape}")
            try:
                tally.update(predicted[name], truth[name])
            except DataError as error:
                raise DataError(f"{name}: {error}") from None

    def merge(self, other: Metrics) -> None:
        """Add the frames of ``other``, whose tasks are the same; raises SpecError where they are not."""
        if other.tasks != self.tasks:
            raise SpecError("metrics of different tasks cannot be merged")
        for name, tally in self._tallies.items():
            tally.state += other._tallies[name].state

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the metrics by task and name, in the order of METRICS: see there for units and directions.

        A metric that no pixel determines is absent; so is a task without any metric.
        """
        computed = {}
        for task in self.tasks:
            values = self._tallies[task.name].compute()
            if values:
                computed[task.name] = {m.name: values[m.name] for m in METRICS[task.kind]}
        return computed
