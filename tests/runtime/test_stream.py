"""Streams over engines and sources that move when a test says so: nothing here sleeps to see what happens."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

from emadeploy import Runtime, load
from emadeploy.contract.errors import ArtifactError, DataError, DeviceError, FrameError, SpecError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TensorSpec
from emadeploy.runtime import capture
from emadeploy.runtime.queue import CalledSlot, InferQueue
from emadeploy.runtime.stream import Stream

#: How long a test waits for something that must happen, before it calls it hung.
PATIENCE = 30.0


def frame_of(number: int) -> np.ndarray:
    """A frame whose maps tell its number, 0 to 255."""
    return np.full((4, 6, 3), number % 256, np.uint8)


class Session:
    """An engine. Closed (`gate`), it keeps the frame that it has until one is let through; it answers its mean."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate: threading.Semaphore | None = None
        self.failing: set[int] = set()
        self.in_flight = self.most_in_flight = 0

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        number = round(float(inputs["image"].mean()) * 255)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        self.entered.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=PATIENCE)
        self.in_flight -= 1
        if number in self.failing:
            raise DeviceError(f"engine failed at {number}")
        shapes = {"semseg": 13, "depth": 1, "normals": 3}
        return {name: np.full((1, channels, 2, 2), number, np.float32) for name, channels in shapes.items()}

    def close(self) -> None:
        pass

    def describe(self) -> dict[str, str | int]:
        return {}


class QueueSession(Session):
    """The same with a queue of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = ThreadPoolExecutor(1, "engine")

    def queue(self, depth: int = 2) -> InferQueue:
        return InferQueue(lambda: CalledSlot(self.worker, self.run), depth)

    def close(self) -> None:
        self.worker.shutdown()


@pytest.fixture(params=[Session, QueueSession])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def perception(session: Session, tiny_spec: ModelSpec) -> Runtime:
    model = replace(tiny_spec, input=InputSpec(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    image = TensorSpec("image", (1, 3, 32, 32), "float32", "BCHW")
    files = {"x": FileRecord("0" * 64, 1)}
    return Runtime(Manifest(model, "onnxruntime-fp32", {"all": "fp32"}, "x", files, (image,), ()), session)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does with a stream, it leaves no thread of one behind."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("emadeploy")] == []


def numbers(results: Any) -> list[int]:
    return [int(result.depth[0, 0]) for result in results]


def settled(condition: Callable[[], bool]) -> None:
    """Wait for what other threads are about to do."""
    ready = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        ready.wait(0.001)
    raise AssertionError("this never came to be")


@dataclass(frozen=True)
class Shot:
    name: str
    pixels: np.ndarray
    stamp: float


class Camera:
    """A live source that gives a frame whenever a test shoots, and fails or ends when it is told to."""

    live = True

    def __init__(self) -> None:
        self.shots: list[Any] = []
        self.changed = threading.Condition()
        self.opened = self.closed = 0
        self.over = False

    def quit(self) -> None:
        """Give nothing more: it ends, whenever it is opened."""
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def shoot(self, *items: Any) -> None:
        with self.changed:
            self.shots += items
            self.changed.notify_all()

    def frames(self, on_bad: Any = None) -> Iterator[Shot]:
        self.opened += 1
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.over or bool(self.shots))
                    item = self.shots.pop(0) if self.shots else None
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    return
                yield Shot(f"shot {item}", frame_of(item), float(item))
        finally:
            self.closed += 1

    def __str__(self) -> str:
        return "camera:test"


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.quit()


# Every frame of a file.


def test_every_frame_is_answered_in_order_as_by_a_call(perception: Runtime) -> None:
    stream = perception.stream(frame_of(i) for i in range(100))
    results = list(stream)
    assert numbers(results) == list(range(100))
    for index in (0, 57):
        wanted = perception(frame_of(index)).maps
        for name, array in results[index].maps.items():
            np.testing.assert_array_equal(array, wanted[name])
    stats = stream.stats
    assert (stats.captured, stats.answered, stats.dropped, stats.failed, stats.waiting) == (100, 100, 0, 0, 0)
    assert list(stats.seconds) == ["capture", "preprocess", "inference", "decode"]
    assert all(seconds > 0 for seconds in stats.seconds.values())


def test_frames_in_flight_in_openvino_are_answered_as_by_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from networks import SIZE, tiny_graph

    from emadeploy.build.openvino import build

    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    build(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "openvino-fp32")
    frames = [np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in range(12)]
    with load(tmp_path / "artifact", threads=1) as engine:
        wanted = [engine(frame).maps for frame in frames]
        for result, maps in zip(engine.stream(frames), wanted, strict=True):
            for name, array in result.maps.items():
                np.testing.assert_array_equal(array, maps[name])


def test_stamps_come_from_capture(perception: Runtime) -> None:
    assert [r.stamp for r in perception.stream([(0.5, frame_of(1)), (7, frame_of(2))])] == [0.5, 7.0]
    shots = [Shot("a", frame_of(1), 12.25)]
    assert [r.stamp for r in perception.stream(shots)] == [12.25]
    [now] = perception.stream([frame_of(1)])
    assert now.stamp == pytest.approx(perception(frame_of(1)).stamp, abs=PATIENCE)


def test_timings_add_up_to_the_age_of_a_result(perception: Runtime) -> None:
    for result in perception.stream([frame_of(i) for i in range(5)]):
        assert list(result.timings) == ["capture", "preprocess", "inference", "decode", "wait"]
        assert all(result.timings[stage] >= 0 for stage in ("capture", "preprocess", "inference", "decode"))


def test_an_array_of_frames_and_bgr(perception: Runtime) -> None:
    clip = np.stack([frame_of(i) for i in range(3)])
    assert numbers(perception.stream(clip)) == [0, 1, 2]
    frame = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    [result] = perception.stream([frame[:, :, ::-1]], order="bgr")
    np.testing.assert_array_equal(result.depth, perception(frame).depth)


def test_thousands_of_frames_wait_nowhere(perception: Runtime, session: Session) -> None:
    stream = perception.stream((frame_of(i) for i in range(3000)), drop="none")
    most = 0
    for count, result in enumerate(stream):
        assert int(result.depth[0, 0]) == count % 256
        most = max(most, stream.stats.waiting)
    assert count == 2999
    # Two captured, one being preprocessed, two in the engine and one beside it, one decoded, two waiting, one captured.
    assert most <= 10
    assert session.most_in_flight == 1


def test_a_slow_loop_makes_a_file_wait(perception: Runtime) -> None:
    given: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for index in range(50):
            given.append(index)
            yield frame_of(index)

    stream = perception.stream(frames())
    results = iter(stream)
    next(results)
    settled(lambda: stream.stats.waiting >= 6)
    assert len(given) <= 11
    assert numbers(results) == list(range(1, 50))
    assert stream.stats.dropped == 0


# The newest frame of a camera.


def test_while_the_engine_is_busy_older_frames_are_dropped(
    perception: Runtime, session: Session, camera: Camera
) -> None:
    session.gate = threading.Semaphore(0)
    stream = perception.stream(camera)
    results = reading(stream)
    camera.shoot(1)
    assert session.entered.acquire(timeout=PATIENCE)
    camera.shoot(*range(2, 10))
    settled(lambda: stream.stats.captured == 9)
    taken = []
    while not taken or taken[-1] != 9:
        session.gate.release()
        taken.append(results.get(timeout=PATIENCE))
    assert taken[0] == 1
    # Beside what was in the engine, at most one was on its way there, and the newest waited.
    assert len(taken) <= 3
    assert taken == sorted(taken)
    assert (stream.stats.dropped, stream.stats.waiting) == (9 - len(taken), 0)
    camera.quit()
    stream.close()
    assert results.get(timeout=PATIENCE) is None
    assert camera.opened == camera.closed >= 1


def reading(stream: Stream) -> "Queue[float | None]":
    """The stamps of a stream as another thread gets them, then None."""
    found: Queue[float | None] = Queue()

    def read() -> None:
        for result in stream:
            found.put(result.stamp)
        found.put(None)

    threading.Thread(target=read).start()
    return found


def test_a_slow_loop_gets_the_newest_result(perception: Runtime, camera: Camera) -> None:
    with perception.stream(camera) as stream:
        results = iter(stream)
        camera.shoot(0)
        assert next(results).stamp == 0.0
        for number in range(1, 30):
            camera.shoot(number)
            settled(lambda number=number: len(stream._answers) == 1 and newest(stream) == number)
        assert next(results).stamp == 29.0
        assert stream.stats.dropped == 28
        assert stream.stats.waiting == 0
        camera.quit()


def newest(stream: Stream) -> float:
    return stream._answers._items[-1].answer.frame.stamp  # type: ignore[union-attr]


def test_drop_can_be_chosen(perception: Runtime, session: Session) -> None:
    session.gate = threading.Semaphore(0)
    gone = threading.Event()

    def frames() -> Iterator[np.ndarray]:
        for index in range(20):
            yield frame_of(index)
        gone.set()
        session.gate.release(20)  # type: ignore[union-attr]

    stream = perception.stream(frames(), drop="oldest")
    found = numbers(stream)
    assert gone.is_set()
    assert found[-1] == 19
    assert stream.stats.dropped == 20 - len(found) >= 17


# A frame that fails.


@pytest.mark.parametrize("where", ["preprocess", "engine", "decode"])
def test_a_frame_that_fails_raises_in_its_turn(perception: Runtime, session: Session, where: str) -> None:
    frames, error, says = failing_at_3(perception, session, where)
    seen: list[int] = []
    stream = perception.stream(frames)
    with pytest.raises(error, match=says):
        seen.extend(int(result.depth[0, 0]) for result in stream)
    assert (stream.stats.answered, stream.stats.failed) == (3, 1)


@pytest.mark.parametrize("where", ["preprocess", "engine", "decode"])
def test_skipped_it_is_logged_and_the_others_are_answered(
    perception: Runtime, session: Session, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames, _, says = failing_at_3(perception, session, where)
    stream = perception.stream(frames, on_error="skip")
    with caplog.at_level(logging.WARNING, "emadeploy"):
        assert numbers(stream) == [0, 1, 2, 4, 5, 6, 7]
    assert [record.getMessage() for record in caplog.records if says in record.getMessage()] != []
    stats = stream.stats
    assert (stats.captured, stats.answered, stats.failed, stats.waiting) == (8, 7, 1, 0)


@pytest.mark.parametrize("where", ["preprocess", "engine", "decode"])
def test_answers_hold_results_and_errors_side_by_side(perception: Runtime, session: Session, where: str) -> None:
    frames, error, says = failing_at_3(perception, session, where)
    answers = list(perception.stream(frames).answers())
    assert [answer.frame.name for answer in answers] == [f"{index:06d}" for index in range(8)]  # type: ignore[union-attr]
    assert [index for index, answer in enumerate(answers) if answer.error] == [3]
    with pytest.raises(error, match=says):
        answers[3].result()
    assert answers[4].result() is answers[4].outputs


def failing_at_3(perception: Runtime, session: Session, where: str) -> tuple[list[np.ndarray], type[Exception], str]:
    frames = [frame_of(index) for index in range(8)]
    if where == "preprocess":
        frames[3] = frames[3].astype(np.float32)
        return frames, FrameError, "frame has dtype float32"
    if where == "engine":
        session.failing.add(3)
        return frames, DeviceError, "engine failed at 3"
    whole = session.run

    def run(inputs: Any) -> dict[str, np.ndarray]:
        answers = whole(inputs)
        if answers["depth"][0, 0, 0, 0] == 3:
            answers["depth"][:] = np.nan
        return answers

    session.run = run  # type: ignore[method-assign]
    return frames, ArtifactError, "values that are not finite"


class Hiccups:
    """An iterator that fails at some frames and goes on."""

    def __init__(self, count: int, failing: set[int]) -> None:
        self.numbers, self.failing = iter(range(count)), failing

    def __iter__(self) -> "Hiccups":
        return self

    def __next__(self) -> np.ndarray:
        number = next(self.numbers)
        if number in self.failing:
            raise OSError(f"no frame {number}")
        return frame_of(number)


def test_capture_that_fails_and_goes_on_loses_one_frame(perception: Runtime) -> None:
    stream = perception.stream(Hiccups(6, {2, 3}), on_error="skip")
    assert numbers(stream) == [0, 1, 4, 5]
    assert (stream.stats.captured, stream.stats.failed) == (6, 2)
    with pytest.raises(OSError, match="no frame 2"):
        list(perception.stream(Hiccups(6, {2, 3})))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_capture_that_fails_for_good_is_never_taken_for_the_end(perception: Runtime, on_error: str) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield frame_of(0)
        raise OSError("the disk is gone")

    for source in (broken(), Hiccups(2, {1}), Hiccups(10**9, set(range(5, 10**3)))):
        stream = perception.stream(source, on_error=on_error)
        with pytest.raises(OSError, match=r"the disk is gone|no frame"):
            numbers(stream)
        assert stream.stats.answered >= 1


def test_what_a_file_cannot_read_is_reported_in_its_place(perception: Runtime) -> None:
    class Folder:
        live = False

        def frames(self, on_bad: Any) -> Iterator[Shot]:
            yield Shot("a", frame_of(0), 0.0)
            on_bad(DataError("b.png is damaged"))
            yield Shot("c", frame_of(2), 2.0)
            on_bad(DataError("ends after 3 frames"))

    answers = list(perception.stream(Folder()).answers())
    assert [str(answer.error) if answer.error else answer.frame.name for answer in answers] == [  # type: ignore[union-attr]
        "a",
        "b.png is damaged",
        "c",
        "ends after 3 frames",
    ]
    with pytest.raises(DataError, match=r"b\.png"):
        numbers(perception.stream(Folder()))


# A camera that is lost.


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_DELAY", 0.0)


@pytest.mark.usefixtures("no_delay")
def test_a_lost_camera_is_opened_again(perception: Runtime, camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    camera.shoot(1, DataError("camera:test was unplugged"), DataError("no such device"), 2, None, 3, None)
    stream = perception.stream(camera, drop="none")
    results = iter(stream)
    with caplog.at_level(logging.WARNING, "emadeploy"):
        assert [next(results).stamp for _ in range(3)] == [1.0, 2.0, 3.0]
    assert stream.stats.reconnects >= 2
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("camera:test was unplugged; attempt 1 of 10 to open it again")
    assert said[1].startswith("no such device; attempt 2 of 10")
    assert said[2].startswith("camera:test gives no more frames; attempt 1 of 10")
    camera.quit()
    results.close()  # type: ignore[attr-defined]
    assert camera.opened == camera.closed


@pytest.mark.usefixtures("no_delay")
def test_a_camera_that_stays_lost_is_given_up(perception: Runtime, camera: Camera) -> None:
    camera.shoot(1, *[DataError("no such device")] * (1 + capture.ATTEMPTS))
    stream = perception.stream(camera, on_error="skip")
    with pytest.raises(DataError, match="no such device; 10 attempts to open it again failed"):
        numbers(stream)
    assert stream.stats.reconnects == capture.ATTEMPTS


def test_a_camera_that_never_was_there_fails_at_once(perception: Runtime, camera: Camera) -> None:
    camera.shoot(DataError("no such device"))
    with pytest.raises(DataError, match=r"^no such device$"):
        list(perception.stream(camera))
    assert camera.opened == 1


def test_delays_grow_to_a_bound_and_a_stop_ends_them(camera: Camera) -> None:
    delays: list[float] = []

    def pause(seconds: float) -> bool:
        delays.append(seconds)
        return len(delays) == 8

    camera.shoot(1, *[DataError("lost")] * 20)
    [frame] = capture.Capture(camera, pause).frames()
    assert not isinstance(frame, Exception)
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


# The end.


def stream_threads() -> int:
    return sum(thread.name.startswith("emadeploy") for thread in threading.enumerate())


def endless() -> Iterator[np.ndarray]:
    number = 0
    while True:
        yield frame_of(number)
        number += 1


def test_leaving_the_loop_ends_the_stream(perception: Runtime) -> None:
    stream = perception.stream(endless())
    for _ in stream:
        assert stream_threads() >= 3
        break
    assert stream_threads() == 0
    assert stream.stats.answered == 1
    stats = stream.stats
    assert stats.captured == stats.answered + stats.waiting
    for result in perception.stream(endless()).answers():
        if result.result().depth[0, 0] == 5:
            break
    assert stream_threads() == 0


def test_an_exception_in_the_loop_ends_the_stream(perception: Runtime) -> None:
    def loop() -> None:
        for _ in perception.stream(endless()):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop()
    assert stream_threads() == 0


def test_a_stream_that_is_never_iterated_starts_nothing(perception: Runtime) -> None:
    stream = perception.stream(endless())
    assert stream_threads() == 0
    with stream:
        pass
    with pytest.raises(SpecError, match="iterated or closed already"):
        next(iter(stream))


def test_with_and_close_end_it_from_anywhere(perception: Runtime) -> None:
    with perception.stream(endless()) as stream:
        results = iter(stream)
        next(results)
        with pytest.raises(SpecError, match="iterated or closed already: make another"):
            next(iter(stream))
        assert stream_threads() >= 3
    assert stream_threads() == 0
    assert list(results) == []
    stream.close()
    again = perception.stream(endless())
    for _ in again:
        closer = threading.Thread(target=again.close)
        closer.start()
        closer.join(PATIENCE)
    assert again.stats.answered == 1


def test_a_source_that_stalls_is_left_to_itself(
    perception: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("emadeploy.runtime.stream.GRACE", 0.05)
    answers = threading.Event()
    ended = threading.Event()

    def stalled() -> Iterator[np.ndarray]:
        yield frame_of(0)
        try:
            assert answers.wait(PATIENCE)
            yield frame_of(1)
        finally:
            ended.set()

    with caplog.at_level(logging.WARNING, "emadeploy"):
        for _ in perception.stream(stalled()):
            break
    assert "the source has not answered" in caplog.text
    answers.set()
    assert ended.wait(PATIENCE)
    settled(lambda: stream_threads() == 0)


def test_a_closed_runtime_ends_the_stream_even_where_errors_are_skipped(perception: Runtime) -> None:
    results = iter(perception.stream(endless(), on_error="skip"))
    next(results)
    perception._session = None
    with pytest.raises(ArtifactError, match="the runtime of 'tiny' is closed"):
        for _ in results:
            pass
    with pytest.raises(ArtifactError, match="the runtime of 'tiny' is closed"):
        perception.stream([])


def test_the_source_is_let_go(perception: Runtime) -> None:
    released = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        try:
            yield from endless()
        finally:
            released.set()

    stream = perception.stream(camera())
    for _ in stream:
        break
    assert released.is_set()


INTERRUPTED = """
import sys, threading
import numpy as np
from emadeploy import load

def frames():
    while True:
        yield np.zeros((40, 60, 3), np.uint8)

with load(sys.argv[1]) as perception:
    stream = perception.stream(frames())
    try:
        for count, result in enumerate(stream):
            if count == 20:
                print("running", flush=True)
            if count >= 20:
                {body}
    except KeyboardInterrupt:
        left = [t.name for t in threading.enumerate() if t.name.startswith("emadeploy")]
        print("stopped", left, stream.stats.answered > 20, flush=True)
"""


@pytest.mark.parametrize("body", ["pass", "threading.Event().wait()"])
def test_ctrl_c_ends_everything(make_artifact: Callable[..., Path], body: str) -> None:
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", INTERRUPTED.format(body=body), str(make_artifact())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "stopped [] True\n"
        assert process.wait(PATIENCE) == 0


# What makes no sense.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"drop": "newest"}, "drop 'newest' is unknown; known: oldest, none"),
        ({"on_error": "ignore"}, "on_error 'ignore' is unknown; known: raise, skip"),
        ({"order": "grey"}, "order 'grey' is unknown; known: rgb, bgr"),
    ],
)
def test_options_that_make_no_sense(perception: Runtime, options: dict[str, str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        perception.stream([], **options)


def test_what_is_no_source(perception: Runtime) -> None:
    with pytest.raises(SpecError, match="a stream's source is int; expected an iterable of frames"):
        perception.stream(3)
    with pytest.raises(SpecError, match="a stream's source is ndarray"):
        perception.stream(frame_of(1))
    with pytest.raises(SpecError, match="camera:test gives RGB by itself"):
        perception.stream(Camera(), order="bgr")
    with pytest.raises(FrameError, match=r"frame 1 of the stream is a tuple of ndarray, float; expected \(stamp in"):
        list(perception.stream([(0.0, frame_of(0)), (frame_of(1), 1.0)]))
    with pytest.raises(FrameError, match="a frame is a numpy array, got str"):
        list(perception.stream(["x"]))
    assert list(perception.stream([])) == []
