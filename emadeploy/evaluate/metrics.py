"""The one set of metrics: training, `eval`, calibration and bench judge decoded maps with it.

Predictions and truth share the conventions of :mod:`emadeploy.contract.outputs`, and their height and width. Truth
that is not to be judged: 255 in semseg, human_parts, edge and saliency (the last two being uint8 0 or 1), 0 in depth,
(0, 0, 0) in normals. What each metric is, to the pixel, stands in :mod:`emadeploy.evaluate.tallies`,
:mod:`~emadeploy.evaluate.probabilities` and :mod:`~emadeploy.evaluate.boundaries`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.boundaries import BoundaryTally, has_matcher
from emadeploy.evaluate.probabilities import BestFTally, SalientTally
from emadeploy.evaluate.tallies import AngleTally, Array, DepthTally, Float64, LabelTally, Tally

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


#: The metrics of each kind of task, all of which a judged task has. The first is its primary one.
METRICS: dict[str, tuple[Metric, ...]] = {
    "semseg": (Metric("miou", True, "%"), Metric("pixel_accuracy", True, "%")),
    "depth": (
        Metric("abs", False, "unit"),
        Metric("rel", False, ""),
        Metric("rmse", False, "unit"),
        Metric("log_rmse", False, "", in_mean=False),
        Metric("delta1", True, "%", in_mean=False),
        Metric("delta2", True, "%", in_mean=False),
        Metric("delta3", True, "%", in_mean=False),
    ),
    "normals": (
        Metric("mean", False, "deg"),
        Metric("median", False, "deg", in_mean=False),
        Metric("rmse", False, "deg", in_mean=False),
        Metric("within_11_25", True, "%"),
        Metric("within_22_5", True, "%"),
        Metric("within_30", True, "%"),
    ),
    "edge": (Metric("f1", True, "%"),),
    "saliency": (
        Metric("maxf", True, "%"),
        Metric("miou", True, "%", in_mean=False),
        Metric("mae", False, "", in_mean=False),
    ),
    "human_parts": (Metric("miou", True, "%"), Metric("pixel_accuracy", True, "%", in_mean=False)),
}

#: Metrics that a task has where they were asked for, and that then stand for it in place of the others.
ON_REQUEST: dict[str, tuple[Metric, ...]] = {"edge": (Metric("odsf", True, "%"),)}

#: What judges edges: their pixels where they are, or matched with the tolerance of BSDS, which takes scipy and time.
EDGE_MEASURES = ("f1", "odsf")


def default_edges() -> str:
    """Return how edges are judged where nobody says: by 'odsf' where scipy is installed, else by 'f1'."""
    return "odsf" if has_matcher() else "f1"


#: Task kind -> what makes its tallies.
TALLIES: dict[str, tuple[Callable[[TaskSpec], Tally], ...]] = {
    "semseg": (LabelTally,),
    "depth": (DepthTally,),
    "normals": (AngleTally,),
    "edge": (BestFTally,),
    "saliency": (BestFTally, SalientTally),
    "human_parts": (LabelTally,),
}


def metrics_in(task: str, *rows: Mapping[str, float]) -> tuple[Metric, ...]:
    """Return the metrics of ``task`` that all ``rows`` have, what stands for the task first.

    Rows are those of `eval --json`; raises DataError for a task that is unknown.
    """
    if task not in METRICS:
        raise DataError(f"task {task!r} is unknown; known: {', '.join(METRICS)}")
    known = (*ON_REQUEST.get(task, ()), *METRICS[task])
    return tuple(metric for metric in known if all(metric.name in row for row in rows))


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

    def __init__(self, tasks: Sequence[TaskSpec], edges: str = "f1") -> None:
        """Make the metrics of no frame. ``edges``, one of EDGE_MEASURES, says how edges are judged.

        Raises SpecError where it is none of them, BackendMissing for 'odsf' where a task needs it and scipy is missing.
        """
        if edges not in EDGE_MEASURES:
            raise SpecError(f"edges {edges!r} is unknown; known: {', '.join(EDGE_MEASURES)}")
        self.tasks, self.edges = tuple(tasks), edges
        self._frames: Float64 = np.zeros(len(self.tasks))
        self._tallies: dict[str, tuple[Tally, ...]] = {}
        for task in self.tasks:
            also = (BoundaryTally,) if task.kind == "edge" and edges == "odsf" else ()
            self._tallies[task.name] = tuple(make(task) for make in (*TALLIES[task.kind], *also))

    def update(self, predicted: Mapping[str, Array], truth: Mapping[str, Array]) -> None:
        """Add one frame: decoded maps and their truth by task, at the same height and width.

        A task that ``truth`` lacks is skipped: the frame does not count for it, nor does one whose truth has no pixel
        to judge. Raises DataError where the prediction lacks a task that has a truth, where shapes differ, or where
        values break the conventions.
        """
        for index, (name, tallies) in enumerate(self._tallies.items()):
            if name not in truth:
                continue
            if name not in predicted:
                raise DataError(f"the prediction has no {name!r}; it has {', '.join(predicted) or 'no map at all'}")
            if predicted[name].shape != truth[name].shape:
                raise DataError(f"{name}: the prediction has shape {predicted[name].shape}, truth {truth[name].shape}")
            try:
                pixels = [tally.update(predicted[name], truth[name]) for tally in tallies]
            except DataError as error:
                raise DataError(f"{name}: {error}") from None
            self._frames[index] += any(pixels)

    @property
    def frames(self) -> dict[str, int]:
        """How many frames had pixels to judge for each task, by name; 0 for a task that none had a truth for."""
        return {name: round(count) for name, count in zip(self._tallies, self._frames, strict=True)}

    def state(self) -> Float64:
        """Return everything that was added up, float64 (n,), a copy.

        The length depends on the tasks and ``edges`` alone, never on the frames, and is the same in every process.
        All of it are sums: the state of two sets of frames together is the sum of their states. Nothing in it may be
        averaged.
        """
        return np.concatenate([part.ravel() for part in self._parts()])

    @classmethod
    def from_state(cls, tasks: Sequence[TaskSpec], state: Float64, edges: str = "f1") -> Metrics:
        """Return the metrics of ``tasks`` whose :meth:`state`, or the sum of several, is given.

        Raises SpecError where the length is not that of a state of these tasks, and as the constructor does.
        """
        metrics = cls(tasks, edges)
        parts = metrics._parts()
        expected = sum(part.size for part in parts)
        if state.shape != (expected,):
            raise SpecError(
                f"a state of shape {state.shape} is not one of the tasks {', '.join(metrics._tallies)}: they have "
                f"({expected},); states are summed between processes that judge the same tasks in the same way"
            )
        for part, values in zip(parts, np.split(state, np.cumsum([part.size for part in parts])[:-1]), strict=True):
            part[...] = values.reshape(part.shape)
        return metrics

    def merge(self, other: Metrics) -> None:
        """Add the frames of ``other``: the result is that of judging the frames of both.

        Raises SpecError where its tasks, or how it judges edges, are not the same.
        """
        if (other.tasks, other.edges) != (self.tasks, self.edges):
            raise SpecError("metrics of different tasks cannot be merged")
        for part, others in zip(self._parts(), other._parts(), strict=True):
            part += others

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the metrics by task and name, in the order of METRICS: see there for units and directions.

        A task has all metrics of METRICS, and those that were asked for, or is absent: where no pixel determines one.
        """
        computed = {}
        for task in self.tasks:
            values: dict[str, float] = {}
            for tally in self._tallies[task.name]:
                values |= tally.compute()
            found = metrics_in(task.kind, values)
            if set(METRICS[task.kind]) <= set(found):
                computed[task.name] = {metric.name: values[metric.name] for metric in found}
        return computed

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return the IoU of the classes, percent, by task and class name; a class that occurs nowhere is absent."""
        computed = {}
        for name, tallies in self._tallies.items():
            for tally in tallies:
                if isinstance(tally, LabelTally) and (row := tally.per_class()):
                    computed[name] = row
        return computed

    def _parts(self) -> list[Float64]:
        """Return the arrays that hold all the sums, in a fixed order: themselves, not copies."""
        return [self._frames, *(tally.state for tallies in self._tallies.values() for tally in tallies)]
