"""Two networks on the same frames, the networks being functions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from emadeploy.contract.errors import DataError, FrameError, SpecError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.data.sample import Sample
from emadeploy.evaluate.compare import common_tasks, compare
from emadeploy.evaluate.run import evaluate

SEMSEG, DEPTH = TaskSpec("semseg", class_names=("floor", "wall")), TaskSpec("depth")
TASKS = (SEMSEG, DEPTH)


class Frames:
    """Frames whose red channel is the depth in metres, 1, 2, ...; everything is floor. Counts how often it is read."""

    description = "frames"

    def __init__(self, count: int, tasks: tuple[str, ...] = ("depth",)) -> None:
        self.count, self.tasks, self.reads = count, tasks, 0
        self.specs = tuple(task for task in TASKS if task.name in tasks)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        truth = {"depth": np.full((2, 3), index + 1, np.float32), "semseg": np.zeros((2, 3), np.uint8)}
        return Sample(
            f"frame-{index}", np.full((2, 3, 3), index + 1, np.uint8), {name: truth[name] for name in self.tasks}
        )


def network(metres_off: float, label: int):
    def predict(frame: np.ndarray) -> dict[str, np.ndarray]:
        depth_HW = frame[..., 0].astype(np.float32) + metres_off
        return {"semseg": np.full(frame.shape[:2], label, np.uint8), "depth": depth_HW}

    return predict


def model(*tasks: TaskSpec, name: str = "m") -> ModelSpec:
    return ModelSpec(name, "hps", tasks, InputSpec(32, 64))


def test_parity_takes_b_as_true_and_the_metrics_are_those_of_evaluate():
    a, b, seen = network(0.5, 0), network(1.0, 0), []
    data = Frames(2, ("depth", "semseg"))
    record = compare(a, b, data, TASKS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert data.reads == 2
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [record[key] for key in ("schema", "data", "frames")] == [1, "frames", 2]
    assert record["parity"]["semseg"] == {"agreement": 100.0, "miou": 100.0}
    # 1.5 beside 2, 2.5 beside 3.
    assert record["parity"]["depth"]["rel_mean"] == pytest.approx((0.5 / 2 + 0.5 / 3) / 2)
    for which, predict in (("a", a), ("b", b)):
        assert record["tasks"][which] == evaluate(predict, data, TASKS)["tasks"]
    assert record["tasks"]["difference"]["depth"]["abs"] == pytest.approx(-0.5)
    assert record["tasks"]["difference"]["semseg"] == {"miou": 0.0, "pixel_accuracy": 0.0}


def test_without_truth_there_is_parity_alone():
    record = compare(network(0, 0), network(0, 1), Frames(1, ()), TASKS)
    assert record["parity"]["semseg"] == {"agreement": 0.0, "miou": 0.0}
    assert record["parity"]["depth"] == {"rel_mean": 0.0, "rel_p99": 0.0}
    assert record["tasks"] == {"a": {}, "b": {}, "difference": {}}


def test_every_frame_can_be_looked_at():
    looked = []
    compare(network(1, 0), network(0, 1), Frames(2), TASKS, look=looked.append)
    assert [frame.sample.name for frame in looked] == ["frame-0", "frame-1"]
    assert looked[1].a["depth"][0, 0] == 3
    assert looked[1].b["depth"][0, 0] == 2
    assert looked[1].differences["depth"].tolist() == [[0.5] * 3] * 2
    assert looked[1].differences["semseg"].tolist() == [[1.0] * 3] * 2


def test_no_frame_is_refused():
    with pytest.raises(DataError, match="frames holds no frame"):
        compare(network(0, 0), network(0, 0), Frames(0), TASKS)


def test_what_a_network_refuses_comes_with_the_frame_and_whose_it_was():
    def refuse(frame: np.ndarray) -> dict[str, np.ndarray]:
        raise FrameError("frame is 2 x 3")

    with pytest.raises(FrameError, match="frames, frame frame-0: B: frame is 2 x 3"):
        compare(network(0, 0), refuse, Frames(1), TASKS)
    with pytest.raises(DataError, match="frames, frame frame-0: the reference has no 'depth'"):
        compare(network(0, 0), lambda frame: {"semseg": np.zeros((2, 3), np.uint8)}, Frames(1), TASKS)


def test_common_tasks_are_those_of_b_that_a_has():
    a, b = model(TaskSpec("edge"), DEPTH, SEMSEG), model(SEMSEG, replace(DEPTH, weight=2.0), TaskSpec("normals"))
    assert common_tasks(a, b) == b.tasks[:2]
    # Classes without names are compared by their number, colours not at all.
    unnamed = model(TaskSpec("semseg", channels=2))
    assert common_tasks(unnamed, model(SEMSEG)) == (SEMSEG,)
    recoloured = replace(SEMSEG, palette=((0, 0, 0), (1, 1, 1)))
    assert common_tasks(model(recoloured), model(SEMSEG)) == (SEMSEG,)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (DEPTH, SEMSEG, r"A \('m'\) has depth and B \('n'\) has semseg: no task in common"),
        (
            TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"),
            DEPTH,
            "task 'depth': the unit is inverse_depth in A and metre in B",
        ),
        (
            TaskSpec("normals"),
            TaskSpec("normals", direction="away_from_camera"),
            "task 'normals': the direction is toward_camera in A and away_from_camera in B",
        ),
        (
            TaskSpec("normals", frame="dataset"),
            TaskSpec("normals"),
            "the frame is dataset in A and camera_optical in B",
        ),
        (SEMSEG, TaskSpec("semseg", channels=3), "the number of classes is 2 in A and 3 in B"),
        (SEMSEG, TaskSpec("semseg", class_names=("floor", "sky")), "class 1 is wall in A and sky in B"),
    ],
)
def test_tasks_of_another_meaning_are_refused(a, b, message):
    with pytest.raises(SpecError, match=message):
        common_tasks(model(a), model(b, name="n"))
