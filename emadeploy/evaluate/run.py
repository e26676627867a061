"""Judge a network on a data set: every frame through it, its maps against the truth, one record for `eval --json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.meaning import check_truths
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.metrics import Metrics

if TYPE_CHECKING:  # a neighbour on the same floor: its shape is needed, not its code
    from emadeploy.data.sample import Dataset

SCHEMA = 1

#: A uint8 frame (H, W, 3) RGB to its decoded maps by task, at H x W.
Predict = Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.NDArray[Any]]]
#: Called after each frame with the number done and the number of all.
Progress = Callable[[int, int], None]


def evaluate(
    predict: Predict,
    dataset: Dataset,
    tasks: Sequence[TaskSpec],
    progress: Progress | None = None,
    edges: str = "f1",
) -> dict[str, Any]:
    """Return the record of an evaluation: ``{"schema", "data", "frames": n, "tasks": {task: {metric: value}}}``.

    A task that the data has no truth for is absent there. Beside it, ``task_frames`` says how many frames had a truth
    for each task, 0 among them, and ``per_class`` the IoU, percent, by task and class name. ``edges`` says how edges
    are judged: see :class:`emadeploy.evaluate.metrics.Metrics`.

    Raises DataError where no task has a truth, where one means something else than the task (another unit, frame of
    normals, other classes), or there is no frame; SpecError and BackendMissing as Metrics does.
    """
    wanted = [task.name for task in tasks]
    if not set(wanted) & set(dataset.tasks):
        raise DataError(
            f"{dataset.description} has no truth for {', '.join(wanted)}; it has {', '.join(dataset.tasks) or 'none'}"
        )
    check_truths(dataset.specs, tasks, dataset.description)
    if not len(dataset):
        raise DataError(f"{dataset.description} holds no frame")
    metrics = Metrics(tasks, edges)
    for index in range(len(dataset)):
        sample = dataset[index]
        try:
            metrics.update(predict(sample.image), sample.truth)
        except DataError as error:
            raise DataError(f"{dataset.description}, frame {sample.name}: {error}") from None
        if progress is not None:
            progress(index + 1, len(dataset))
    return {
        "schema": SCHEMA,
        "data": dataset.description,
        "frames": len(dataset),
        "tasks": metrics.compute(),
        "task_frames": metrics.frames,
        "per_class": metrics.per_class(),
    }
