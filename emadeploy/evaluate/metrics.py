"""The one set of metrics: training, `eval`, calibration and bench judge decoded maps with it.

Predictions and truth share the conventions of :mod:`emadeploy.contract.outputs`, and their height and width. Truth
that is not to be judged: 255 in semseg, human_parts, edge and saliency (the last two being uint8 0 or 1), 0 in depth,
(0, 0, 0) in normals. What each metric is, to the pixel, stands in :mod:`emadeploy.evaluate.tallies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.tallies import TALLIES, Array, Float64, Tally

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

    Everything it knows is a vector of sums, so several processes that judge frames of their own reduce it by adding:

    >>> total = all_reduce(metrics.state(), "sum")
    >>> Metrics.from_state(spec.tasks, total).compute()
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self.tasks = tuple(tasks)
        self._tallies: dict[str, Tally] = {task.name: TALLIES[task.kind](task) for task in self.tasks}
        self._frames: dict[str, int] = dict.fromkeys(self._tallies, 0)

    def update(self, predicted: Mapping[str, Array], truth: Mapping[str, Array]) -> None:
        """Add one frame: decoded maps and their truth by task, at the same height and width.

        A task that ``truth`` lacks is skipped: the frame does not count for it. Raises DataError where the prediction
        lacks a task that has a truth, where shapes differ, or where values break the conventions.
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
            self._frames[name] += 1

    @property
    def frames(self) -> dict[str, int]:
        """How many frames had a truth for each task, by name; 0 for a task that none had."""
        return dict(self._frames)

    def state(self) -> Float64:
        """Return everything that was added up, float64 (n,), a copy.

        The length depends on the tasks alone, never on the frames, and is the same in every process. All of it are
        sums: the state of two sets of frames together is the sum of their states. Nothing in it may be averaged.
        """
        parts = [np.array(list(self._frames.values()), np.float64)]
        parts += [tally.state.ravel() for tally in self._tallies.values()]
        return np.concatenate(parts)

    @classmethod
    def from_state(cls, tasks: Sequence[TaskSpec], state: Float64) -> Metrics:
        """Return the metrics of ``tasks`` whose :meth:`state`, or the sum of several, is given.

        Raises SpecError where the length is not that of a state of these tasks.
        """
        metrics = cls(tasks)
        expected = metrics.state().size
        if state.shape != (expected,):
            raise SpecError(
                f"a state of shape {state.shape} is not one of the tasks {', '.join(metrics._tallies)}: they have "
                f"({expected},); states are summed between processes with the same tasks"
            )
        cut = len(metrics.tasks)
        metrics._frames = {name: round(count) for name, count in zip(metrics._tallies, state[:cut], strict=True)}
        for tally in metrics._tallies.values():
            size = tally.state.size
            tally.state = state[cut : cut + size].reshape(tally.state.shape).astype(np.float64)
            cut += size
        return metrics

    def merge(self, other: Metrics) -> None:
        """Add the frames of ``other``, whose tasks are the same; raises SpecError where they are not."""
        if other.tasks != self.tasks:
            raise SpecError("metrics of different tasks cannot be merged")
        for name, tally in self._tallies.items():
            tally.state = tally.state + other._tallies[name].state
            self._frames[name] += other._frames[name]

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
