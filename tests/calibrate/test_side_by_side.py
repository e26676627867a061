"""Two frames at a time: the answers of one at a time, in order, and no more held than said."""

import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import onnxruntime as ort

from emadeploy.calibrate import side_by_side
from emadeploy.calibrate.side_by_side import answers, options

SHAPE = (1, 3, 64, 96)


@pytest.fixture(params=[1, 2, 8])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: request.param)
    return request.param


def feeds(count: int) -> Iterator[dict[str, np.ndarray]]:
    for seed in range(count):
        yield {"image": np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)}


@pytest.fixture
def model(build) -> bytes:
    weights = np.random.default_rng(99).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", "conv", ["image", "weights"], ["conv"], {}), ("Relu", "relu", ["conv"], ["map"], {})]
    return build(nodes, {"weights": weights}, {"map": (1, 4, 62, 94)}).SerializeToString()


def test_answers_are_those_of_one_at_a_time(model: bytes, cores: int) -> None:
    session = ort.InferenceSession(model, options(), providers=["CPUExecutionProvider"])
    found = list(answers(session, ["map"], feeds(5)))
    assert len(found) == 5
    for (feed, [result]), given in zip(found, feeds(5), strict=True):
        np.testing.assert_array_equal(feed["image"], given["image"])
        np.testing.assert_array_equal(result, session.run(["map"], given)[0])


def test_cores_are_shared_among_what_runs_at_once(cores: int) -> None:
    assert options().intra_op_num_threads == {1: 1, 2: 1, 8: 4}[cores]


class Session:
    """Answers slowly, and counts the runs at a time and the answers that somebody holds."""

    def __init__(self) -> None:
        self.running, self.most, self.held = 0, 0, weakref.WeakSet()
        self._lock = threading.Lock()

    def run(self, outputs: list[str], feed: dict[str, int]) -> list[object]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.02)
        if feed["image"] == 7:
            raise RuntimeError("the frame is too dark")
        answer = np.full(3, feed["image"]).view(Answer)
        with self._lock:
            self.running -= 1
            self.held.add(answer)
        return [answer]


class Answer(np.ndarray):
    __hash__ = object.__hash__


def test_two_are_held_at_a_time(cores: int) -> None:
    session = Session()
    seen = []
    for feed, [result] in answers(session, ["map"], ({"image": index} for index in range(6))):
        assert int(result[0]) == feed["image"]
        assert len(session.held) <= min(2, cores)
        seen.append(feed["image"])
        del result
    assert seen == [*range(6)]
    assert session.most == min(2, cores)


def test_what_a_run_raises_arrives_at_its_place(cores: int) -> None:
    found = answers(Session(), ["map"], ({"image": index} for index in (5, 7, 6)))
    assert next(found)[0] == {"image": 5}
    with pytest.raises(RuntimeError, match="too dark"):
        next(found)
