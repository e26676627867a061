"""Sources through the runtime."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import DataError, FrameError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.process import process
from emadeploy.robotics.sinks import open_sinks
from emadeploy.robotics.sources import open_source

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


def test_the_maps_of_a_folder_are_those_of_its_pictures(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(40, 60), (64, 96), (30, 20)]):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (*size, 3), np.uint8))
    (folder / "1.png").write_bytes(b"")
    seen: list[tuple[int, int | None]] = []
    told: list[str] = []
    with load(make_artifact()) as perception:
        source = open_source(folder)
        summary = process(
            perception,
            source,
            open_sinks(perception.spec.tasks, save=tmp_path / "out"),
            on_frame=lambda done, total: seen.append((done, total)),
            on_bad=told.append,
        )
        for frame in source.frames(on_bad=lambda error: None):
            with np.load(tmp_path / "out" / f"{frame.name}.npz") as archive:
                for name, array in perception(frame.pixels).maps.items():
                    np.testing.assert_array_equal(archive[name], array)
                assert archive["stamp"] == frame.stamp
    assert summary.frames == 2
    assert (summary.bad, summary.lost) == (told, 1)
    assert "1.png is empty" in told[0]
    assert seen == [(1, 3), (3, 3)]
    assert list(summary.median_ms) == ["preprocess", "inference", "decode", "total"]
    assert all(len(times) == 2 for times in summary.stages_ms.values())


def test_pictures_of_another_size_are_named(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, size in (("fits", (40, 60)), ("other", (60, 40))):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((*size, 3), np.uint8))
    with load(make_artifact(frame_size=(40, 60))) as perception:
        summary = process(perception, open_source(folder))
    assert summary.frames == 1
    assert summary.bad[0].startswith("other: frame is 60 x 40")


def test_a_video_of_another_size_ends_at_its_first_frame(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with load(make_artifact(frame_size=(40, 60))) as perception, pytest.raises(FrameError, match="48 x 64"):
        process(perception, open_source(path))


class LiveCamera:
    """A camera whose second frame never comes: Ctrl-C does, when the first has been ``answered``."""

    length, one_size, live = None, True, True

    def __init__(self, answered: threading.Event) -> None:
        self._answered = answered

    def frames(self, on_bad: Any = None) -> Iterator[Frame]:
        yield Frame("0", np.zeros((48, 64, 3), np.uint8), 0.0)
        assert self._answered.wait(30)
        raise KeyboardInterrupt


class Refusing:
    """A sink that notes how it was closed, and may refuse."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.whole: bool | None = None
        self.written = threading.Event()

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        self.written.set()
        if self._error is not None:
            raise self._error

    def close(self, *, whole: bool) -> None:
        self.whole = whole


def test_what_a_camera_gave_is_whole_when_it_is_interrupted(make_artifact: Callable[..., Path]) -> None:
    sink = Refusing()
    with load(make_artifact()) as perception, pytest.raises(KeyboardInterrupt):
        process(perception, LiveCamera(sink.written), [sink])
    assert sink.whole is True


def test_what_a_sink_refused_is_not_whole_even_of_a_camera(make_artifact: Callable[..., Path]) -> None:
    sink = Refusing(DataError("out.mjpeg cannot be written: No space left on device"))
    with load(make_artifact()) as perception, pytest.raises(DataError, match="No space left"):
        process(perception, LiveCamera(sink.written), [sink])
    assert sink.whole is False
