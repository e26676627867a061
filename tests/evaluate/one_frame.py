"""What the tests of the metrics share: a task of each kind, and the metrics of one frame of one of them."""

import numpy as np

from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.metrics import Metrics

SEMSEG = TaskSpec("semseg", channels=3)
DEPTH = TaskSpec("depth")
NORMALS = TaskSpec("normals")
EDGE = TaskSpec("edge")
SALIENCY = TaskSpec("saliency")
PARTS = TaskSpec("human_parts", channels=7)


def measure(task: TaskSpec, predicted: object, truth: object) -> dict[str, float]:
    """Return the metrics of one frame of one task."""
    dtype = np.uint8 if task.kind in ("semseg", "human_parts") else np.float32
    true_dtype = np.uint8 if task.kind in ("edge", "saliency") else dtype
    metrics = Metrics([task])
    metrics.update({task.name: np.asarray(predicted, dtype)}, {task.name: np.asarray(truth, true_dtype)})
    return metrics.compute().get(task.name, {})
