"""Frames in flight: bounded, in order, and each one's failure its own."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.queue import Answers, InferQueue, Inputs

BAD = 13


class Engine:
    """Counts the frames in flight; answers are the inputs doubled; 13 fails at the end, -1 at the start."""

    def __init__(self) -> None:
        self.in_flight = self.most = 0
        self.started: list[int] = []


class Slot:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.number: int | None = None

    def start(self, inputs: Inputs) -> None:
        assert self.number is None, "started before the last frame was waited for"
        number = int(inputs["x"])
        if number < 0:
            raise DeviceError("refused")
        self.number = number
        self.engine.started.append(number)
        self.engine.in_flight += 1
        self.engine.most = max(self.engine.most, self.engine.in_flight)

    def wait(self) -> Answers:
        assert self.number is not None, "waited for twice"
        number, self.number = self.number, None
        self.engine.in_flight -= 1
        if number == BAD:
            raise DeviceError(f"failed at {number}")
        return {"y": np.array(2 * number)}


def frame(number: int) -> Inputs:
    return {"x": np.array(number)}


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_in_order_and_never_more_in_flight_than_the_depth(engine: Engine, depth: int) -> None:
    with InferQueue(lambda: Slot(engine), depth) as queue:
        answers = [int(job.result()["y"]) for job in queue.map(frame(i) for i in range(7))]
    assert answers == [2 * i for i in range(7)]
    assert engine.started == list(range(7))
    assert engine.most == min(depth, 7)
    assert engine.in_flight == 0


def test_the_engine_is_kept_busy_and_the_source_is_read_when_there_is_room(engine: Engine) -> None:
    taken = []

    def source() -> Iterator[Inputs]:
        for i in range(100):
            taken.append(i)
            yield frame(i)

    with InferQueue(lambda: Slot(engine), 2) as queue:
        jobs = queue.map(source())
        next(jobs).result()
        assert taken == [0, 1, 2]
        assert engine.in_flight == 1


def test_a_failure_reaches_its_own_frame_alone(engine: Engine) -> None:
    with InferQueue(lambda: Slot(engine), 2) as queue:
        before, bad, after = queue.map(frame(i) for i in (1, BAD, 3))
    assert int(before.result()["y"]) == 2
    with pytest.raises(DeviceError, match=f"failed at {BAD}"):
        bad.result()
    assert int(after.result()["y"]) == 6


def test_a_failure_can_be_looked_at_twice_and_long_after_its_slot_went_on(engine: Engine) -> None:
    with InferQueue(lambda: Slot(engine), 1) as queue:
        first, second = queue.submit(frame(BAD)), queue.submit(frame(4))
    assert int(second.result()["y"]) == 8
    for _ in range(2):
        with pytest.raises(DeviceError, match="failed at 13"):
            first.result()


def test_a_frame_that_is_refused_takes_no_place(engine: Engine) -> None:
    with InferQueue(lambda: Slot(engine), 1) as queue:
        for _ in range(3):
            with pytest.raises(DeviceError, match="refused"):
                queue.submit(frame(-1))
        assert int(queue.submit(frame(5)).result()["y"]) == 10


def test_any_threads_may_wait_for_a_job(engine: Engine) -> None:
    found: list[int] = []
    with InferQueue(lambda: Slot(engine), 2) as queue:
        jobs = [queue.submit(frame(i)) for i in range(6)]
        threads = [
            threading.Thread(target=lambda job=job: found.append(int(job.result()["y"])))
            for job in jobs
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted(2 * i for i in range(6) for _ in range(3))


def test_closed_it_has_waited_and_takes_no_more(engine: Engine) -> None:
    queue = InferQueue(lambda: Slot(engine), 2)
    jobs = [queue.submit(frame(i)) for i in range(2)]
    queue.close()
    queue.close()
    assert engine.in_flight == 0
    assert [int(job.result()["y"]) for job in jobs] == [0, 2]
    with pytest.raises(DeviceError, match="the queue is closed"):
        queue.submit(frame(1))


def test_a_depth_that_holds_no_frame(engine: Engine) -> None:
    with pytest.raises(ValueError, match="depth 0"):
        InferQueue(lambda: Slot(engine), 0)
