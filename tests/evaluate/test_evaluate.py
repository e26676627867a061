"""Evaluation of a network on a data set, the network being a function."""

import json

import numpy as np
import pytest

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.sample import Sample
from emadeploy.evaluate.run import evaluate

TASKS = (TaskSpec("depth"), TaskSpec("edge"))


class Frames:
    """Frames whose red channel is the depth in metres."""

    description = "frames"
    tasks = ("depth", "normals")
    specs = (TaskSpec("depth"), TaskSpec("normals"))

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.full((2, 3, 3), index + 1, np.uint8)
        return Sample(f"frame-{index}", image, {"depth": np.full((2, 3), index + 1, np.float32)})


def one_metre_too_far(frame: np.ndarray) -> dict[str, np.ndarray]:
    return {"depth": frame[..., 0].astype(np.float32) + 1, "edge": np.zeros(frame.shape[:2], np.float32)}


def test_the_record_is_what_the_design_says():
    seen = []
    record = evaluate(one_metre_too_far, Frames(2), TASKS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert {key: record[key] for key in ("schema", "data", "frames")} == {"schema": 1, "data": "frames", "frames": 2}
    assert list(record["tasks"]) == ["depth"]
    assert record["tasks"]["depth"]["abs"] == pytest.approx(1)
    assert record["tasks"]["depth"]["rel"] == pytest.approx((1 + 1 / 2) / 2)


def test_a_frame_without_a_truth_does_not_count_for_that_task():
    class Partly(Frames):
        tasks = ("depth", "semseg")
        specs = (TaskSpec("depth"), TaskSpec("semseg", channels=2))

        def __getitem__(self, index: int) -> Sample:
            whole = super().__getitem__(index)
            label = {"semseg": np.ones((2, 3), np.uint8)} if index == 0 else {}
            return Sample(whole.name, whole.image, label if index == 2 else {**whole.truth, **label})

    def predict(frame: np.ndarray) -> dict[str, np.ndarray]:
        # Right in the first frame alone: labels of the others would show.
        label = np.full(frame.shape[:2], 1 if frame[0, 0, 0] == 1 else 0, np.uint8)
        return {**one_metre_too_far(frame), "semseg": label}

    tasks = (TaskSpec("semseg", class_names=("wall", "floor")), *TASKS)
    record = evaluate(predict, Partly(3), tasks)
    assert record["frames"] == 3
    assert record["task_frames"] == {"semseg": 1, "depth": 2, "edge": 0}
    assert record["tasks"]["semseg"]["miou"] == 100
    assert record["per_class"] == {"semseg": {"floor": 100}}
    assert record["tasks"]["depth"]["rel"] == pytest.approx((1 + 1 / 2) / 2)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_edges_are_judged_as_asked():
    class Lines(Frames):
        tasks, specs = ("edge",), (TaskSpec("edge"),)

        def __getitem__(self, index: int) -> Sample:
            truth = np.zeros((300, 400), np.uint8)
            truth[100] = 1
            return Sample("line", np.zeros((300, 400, 3), np.uint8), {"edge": truth})

    def two_pixels_off(frame: np.ndarray) -> dict[str, np.ndarray]:
        edge = np.zeros(frame.shape[:2], np.float32)
        edge[102] = 0.9
        return {"edge": edge}

    assert list(evaluate(two_pixels_off, Lines(1), [TaskSpec("edge")])["tasks"]["edge"]) == ["f1"]
    matched = evaluate(two_pixels_off, Lines(1), [TaskSpec("edge")], edges="odsf")["tasks"]["edge"]
    assert matched["odsf"] == 100 > matched["f1"]


def test_data_without_any_truth_for_the_network_is_refused():
    with pytest.raises(DataError, match="frames has no truth for edge; it has depth, normals"):
        evaluate(one_metre_too_far, Frames(2), [TaskSpec("edge")])


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        (
            TaskSpec("normals", frame="dataset"),
            "differ in normals: the frame is dataset in the data and camera_optical",
        ),
        (TaskSpec("normals", direction="away_from_camera"), "the direction is away_from_camera in the data and toward"),
        (TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"), "the unit is inverse_depth in the"),
        (TaskSpec("semseg", class_names=("floor", "wall")), "class 0 is floor in the data and wall in the model"),
        (TaskSpec("semseg", channels=3), "the number of classes is 3 in the data and 2 in the model"),
    ],
)
def test_truth_of_another_meaning_is_refused(truth, told):
    frames = Frames(2)
    frames.tasks, frames.specs = (truth.name,), (truth,)
    tasks = (TaskSpec("semseg", class_names=("wall", "floor")), TaskSpec("depth"), TaskSpec("normals"))
    with pytest.raises(DataError, match=f"frames and the model .*{told}"):
        evaluate(one_metre_too_far, frames, tasks)


def test_no_frame_is_refused():
    with pytest.raises(DataError, match="frames holds no frame"):
        evaluate(one_metre_too_far, Frames(0), TASKS)


def test_a_bad_prediction_is_refused_with_its_frame():
    with pytest.raises(DataError, match="frames, frame frame-0: depth: the prediction has shape"):
        evaluate(lambda frame: {"depth": np.ones((1, 1), np.float32)}, Frames(1), TASKS)
