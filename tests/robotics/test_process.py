"""Sources through the runtime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import FrameError
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
