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


def test_data_without_any_truth_for_the_network_is_refused():
    with pytest.raises(DataError, match="frames has no truth for edge; it has depth, normals"):
        evaluate(one_metre_too_far, Frames(2), [TaskSpec("edge")])


def test_no_frame_is_refused():
    with pytest.raises(DataError, match="frames holds no frame"):
        evaluate(one_metre_too_far, Frames(0), TASKS)


def test_a_bad_prediction_is_refused_with_its_frame():
    with pytest.raises(DataError, match="frames, frame frame-0: depth: the prediction has shape"):
        evaluate(lambda frame: {"depth": np.ones((1, 1), np.float32)}, Frames(1), TASKS)
