"""Two networks on the same frames: how far they agree, and, where the data has truth, the metrics of each.

The data is read once: both networks answer a frame before the next is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emadeploy.contract.errors import DataError, EmadeployError, SpecError
from emadeploy.contract.meaning import check_truths, difference
from emadeploy.contract.spec import ModelSpec, TaskSpec
from emadeploy.evaluate.metrics import Metrics, TaskMetrics
from emadeploy.evaluate.parity import Parity
from emadeploy.evaluate.run import Predict, Progress
from emadeploy.evaluate.tallies import Array, Float64

if TYPE_CHECKING:  # a neighbour on the same floor: its shape is needed, not its code
    from emadeploy.data.sample import Dataset, Sample

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class ComparedFrame:
    """One frame and what both answered: decoded maps by task, and how far each pixel differs (H, W) by task.

    What a difference is, per kind of task, stands at :meth:`emadeploy.evaluate.parity.Parity.update`.
    """

    sample: Sample
    a: Mapping[str, Array]
    b: Mapping[str, Array]
    differences: Mapping[str, Float64]


#: Called with each frame after both answered it.
Look = Callable[[ComparedFrame], None]


def common_tasks(a: ModelSpec, b: ModelSpec) -> tuple[TaskSpec, ...]:
    """Return the tasks that both have, as ``b`` specifies them, in its order.

    Raises SpecError where there is none, or where a task does not mean the same in both: other classes, another unit,
    direction or frame of reference.
    """
    common = tuple(task for task in b.tasks if task.name in a.task_names)
    if not common:
        raise SpecError(
            f"A ({a.name!r}) has {', '.join(a.task_names)} and B ({b.name!r}) has {', '.join(b.task_names)}: "
            "no task in common, so there is nothing to compare"
        )
    for task in common:
        differs = difference(a.task(task.name), task)
        if differs is not None:
            what, of_a, of_b = differs
            raise SpecError(
                f"task {task.name!r}: {what} is {of_a} in A and {of_b} in B; numbers of different meaning cannot be "
                "compared"
            )
    return common


def compare(
    a: Predict,
    b: Predict,
    dataset: Dataset,
    tasks: Sequence[TaskSpec],
    progress: Progress | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """Return the record ``{"schema", "data", "frames": n, "parity": {...}, "tasks": {"a", "b", "difference"}}``.

    ``parity``, by task and measure, takes ``b`` as the truth. ``tasks`` of the record holds the metrics of both against
    the data's truth, and those of ``a`` less those of ``b``; a task without truth is absent there. The argument
    ``tasks`` is what :func:`common_tasks` returned.

    Raises DataError where the data has no frame or truths of another meaning, or maps cannot be compared; what a
    network raises comes with the frame and which of the two it was.
    """
    if not len(dataset):
        raise DataError(f"{dataset.description} holds no frame; two networks are compared on at least one")
    check_truths(dataset.specs, tasks, dataset.description)
    parity, judged_a, judged_b = Parity(tasks), Metrics(tasks), Metrics(tasks)
    for index in range(len(dataset)):
        sample = dataset[index]
        where = f"{dataset.description}, frame {sample.name}"
        maps_a, maps_b = _answer(a, sample, f"{where}: A"), _answer(b, sample, f"{where}: B")
        try:
            differences = parity.update(maps_a, maps_b)
            judged_a.update(maps_a, sample.truth)
            judged_b.update(maps_b, sample.truth)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if look is not None:
            look(ComparedFrame(sample, maps_a, maps_b, differences))
        if progress is not None:
            progress(index + 1, len(dataset))
    metrics_a, metrics_b = judged_a.compute(), judged_b.compute()
    return {
        "schema": SCHEMA,
        "data": dataset.description,
        "frames": len(dataset),
        "parity": parity.compute(),
        "tasks": {"a": metrics_a, "b": metrics_b, "difference": _difference(metrics_a, metrics_b)},
    }


def _answer(predict: Predict, sample: Sample, where: str) -> Mapping[str, Array]:
    try:
        return predict(sample.image)
    except EmadeployError as error:
        raise type(error)(f"{where}: {error}") from error


def _difference(a: TaskMetrics, b: TaskMetrics) -> dict[str, dict[str, float]]:
    # The same truth judges both, so both have the same tasks and metrics.
    return {task: {name: value - b[task][name] for name, value in row.items()} for task, row in a.items()}
