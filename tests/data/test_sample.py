"""What stands for a truth that is not there."""

import numpy as np
import pytest

from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import CLASS_SETS, KINDS
from emadeploy.data.check import check
from emadeploy.data.sample import Sample, no_truth
from emadeploy.evaluate.metrics import Metrics

SIZE = (6, 8)


def spec_of(task: str) -> TaskSpec:
    names = {"semseg": "pascal-21", "human_parts": "pascal-parts-7"}
    return TaskSpec(task, class_names=CLASS_SETS[names[task]][0] if task in names else ())


def some_truth(task: str) -> np.ndarray:
    rng = np.random.default_rng(4)
    if task == "depth":
        return rng.uniform(1, 5, SIZE).astype(np.float32)
    if task == "normals":
        normals = rng.normal(size=(*SIZE, 3)).astype(np.float32)
        return normals / np.linalg.norm(normals, axis=2, keepdims=True)
    return rng.integers(0, 2, SIZE).astype(np.uint8)


@pytest.mark.parametrize("task", KINDS)
def test_it_is_of_the_right_shape_and_no_pixel_of_it_counts(task):
    nothing = no_truth(task, SIZE)
    truth = some_truth(task)
    assert (nothing.shape, nothing.dtype) == (truth.shape, truth.dtype)
    spec = spec_of(task)

    class One:
        description, tasks, specs = "one", (task,), (spec,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample("0", np.zeros((*SIZE, 3), np.uint8), {task: nothing})

    assert check(One())["tasks"][task]["invalid"] == 1


@pytest.mark.parametrize("task", KINDS)
def test_metrics_are_the_same_with_it_as_without_the_task(task):
    truth = some_truth(task)
    predicted = truth[::-1].astype(KINDS[task].dtype)
    with_it, without = Metrics([spec_of(task)]), Metrics([spec_of(task)])
    for metrics in (with_it, without):
        metrics.update({task: predicted}, {task: truth})
    with_it.update({task: predicted}, {task: no_truth(task, SIZE)})
    without.update({task: predicted}, {})
    assert with_it.compute() == without.compute()


def test_a_task_that_does_not_exist_is_refused():
    with pytest.raises(SpecError, match="task 'pose' is unknown; known: semseg, depth"):
        no_truth("pose", SIZE)
