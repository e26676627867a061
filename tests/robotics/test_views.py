"""What is shown: the file for rerun, read back by its own reader, and the films, read back by OpenCV."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bags
import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import BackendMissing, DataError, SpecError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics import film
from emadeploy.robotics.bag import Bag
from emadeploy.robotics.film import Film, side_by_side
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.lens import Lens
from emadeploy.robotics.process import process
from emadeploy.robotics.sinks import open_sinks
from emadeploy.robotics.viewer import Viewer

cv2 = pytest.importorskip("cv2")

TASKS = (TaskSpec("semseg", class_names=("floor", "wall"), palette=((1, 2, 3), (40, 50, 60))), TaskSpec("depth"))
LABELS = np.zeros((6, 8), np.uint8)
LABELS[:, 5:] = 1
DEPTH = np.linspace(0, 4, 48, dtype=np.float32).reshape(6, 8)
PIXELS = np.full((6, 8, 3), (200, 100, 50), np.uint8)
OUTPUTS = TaskOutputs(0.0, semseg=LABELS, depth=DEPTH, timings={"inference": 12.5})


def read_rrd(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return entity -> its rows in order of time: column -> value."""
    try:
        from rerun.chunk import RrdReader
    except ModuleNotFoundError:
        from rerun.experimental import RrdReader
    rows: dict[str, list[dict[str, Any]]] = {}
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        columns = {name: batch.column(name) for name in batch.schema.names}
        # Nanoseconds, which Python's own times do not have.
        plain = {
            name: (c.cast("int64") if name in ("capture", "log_time") else c).to_pylist() for name, c in columns.items()
        }
        rows.setdefault(str(chunk.entity_path), []).extend(
            {name: values[index] for name, values in plain.items()} for index in range(batch.num_rows)
        )
    for found in rows.values():
        found.sort(key=lambda row: row.get("capture") or 0)
    return rows


def test_a_drive_in_the_file_for_rerun(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    drive = bags.Drive(count=3)
    with load(make_artifact()) as perception:
        sinks = open_sinks(perception.spec.tasks, view=str(tmp_path / "view.rrd"))
        process(perception, Bag(bags.write_mcap(tmp_path / "drive.mcap", drive)), sinks)
        outputs = perception(drive.pixels(1))
        names = perception.spec.tasks[0].class_names
    assert sorted(path.name for path in tmp_path.glob("view*")) == ["view.rrd"]
    found = read_rrd(tmp_path / "view.rrd")
    stages = ("capture", "preprocess", "inference", "decode", "wait")
    camera = [f"/world/camera/{name}" for name in ("image", "labels", "depth", "normals")]
    logged = {*camera, "/world/camera", "/world/points", *(f"/timings/{stage}" for stage in stages)}
    assert logged <= found.keys()
    for entity in logged:
        stamps = [row["capture"] for row in found[entity]]
        assert stamps == [drive.header(index).stamp_ns for index in range(3)], entity
    context = next(row for row in found["/world"] if "AnnotationContext:context" in row)["AnnotationContext:context"][0]
    told = {entry["class_description"]["info"]["label"] for entry in context}
    assert told == {*names, "unlabelled"}
    assert outputs.depth is not None
    depth = bytes(found["/world/camera/depth"][1]["DepthImage:buffer"][0])
    np.testing.assert_array_equal(np.frombuffer(depth, np.float32).reshape(outputs.depth.shape), outputs.depth)
    labels = bytes(found["/world/camera/labels"][1]["SegmentationImage:buffer"][0])
    np.testing.assert_array_equal(np.frombuffer(labels, np.uint8).reshape(outputs.depth.shape), outputs.semseg)
    focal = np.ravel(found["/world/camera"][1]["Pinhole:image_from_camera"])
    assert focal[[0, 4]].tolist() == [bags.CAMERA.k[0], bags.CAMERA.k[4]]
    positions = np.array(found["/world/points"][1]["Points3D:positions"])
    assert len(positions) == np.count_nonzero(outputs.depth[::2, ::2] > 0)


def test_without_intrinsics_there_is_no_pinhole_and_a_video_has_positions(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    viewer = Viewer(tmp_path / "view.rrd", TASKS, Lens())
    for index in range(2):
        viewer.write(Frame("a", PIXELS, index / 10), OUTPUTS)
    viewer.close(whole=False)
    assert [path.name for path in tmp_path.iterdir()] == ["view.rrd.partial"]
    found = read_rrd((tmp_path / "view.rrd.partial").rename(tmp_path / "part.rrd"))
    assert "/world/points" not in found
    assert "/world/camera" not in found
    assert [row["capture"] for row in found["/timings/inference"]] == [0, 100_000_000]
    assert [row["Scalars:scalars"] for row in found["/timings/inference"]] == [[12.5], [12.5]]


def test_a_viewer_is_found_beside_python_and_asked_for_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    rerun = pytest.importorskip("rerun")
    seen: list[str] = []
    monkeypatch.setattr(rerun.RecordingStream, "spawn", lambda log: seen.append(os.environ["PATH"]))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        DataError, match=r"--view screen cannot be opened: this machine has no display; write FILE\.rrd"
    ):
        Viewer(None, TASKS, Lens())
    monkeypatch.setenv("DISPLAY", ":0")
    path = os.environ["PATH"]
    viewer = Viewer(None, TASKS, Lens())
    assert seen[0].split(os.pathsep)[-1] == str(Path(sys.executable).parent)
    assert os.environ["PATH"] == path

    def lost() -> None:
        raise RuntimeError("unable to connect")

    monkeypatch.setattr(viewer._log, "flush", lost)
    with pytest.raises(DataError, match="--view screen: not everything was shown: unable to connect"):
        viewer.close(whole=True)


def test_a_missing_rerun_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(BackendMissing, match=r"--view needs rerun-sdk, .*: pip install 'emadeploy\[robotics\]'"):
        open_sinks(TASKS, save=tmp_path / "out", view="screen")


def test_a_place_for_the_view_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    with pytest.raises(DataError, match=r"--view .*view\.rrd cannot be opened: "):
        Viewer(tmp_path / "nowhere" / "view.rrd", TASKS, Lens())
    with pytest.raises(DataError, match=r"a\.mjpeg cannot be written: No such file"):
        Film(tmp_path / "nowhere" / "a.mjpeg", TASKS)
    with pytest.raises(SpecError, match=r"--view 'a.avi' is unknown; known: screen, FILE.rrd, FILE.mjpeg, FILE.mp4"):
        open_sinks(TASKS, view="a.avi")


FULL = """
import resource, sys
from contextlib import ExitStack
from pathlib import Path
import numpy as np
from emadeploy.contract.errors import DataError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.sinks import open_sinks

tasks, random = [TaskSpec("depth")], np.random.default_rng(0)
(sink,) = open_sinks(tasks, view=sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with ExitStack() as stack:
        stack.push(lambda kind, error, trace: sink.close(whole=kind is None))
        for index in range(40):
            depth, pixels = random.random((96, 128), np.float32), random.integers(0, 255, (96, 128, 3), np.uint8)
            sink.write(Frame("a", pixels, index / 10), TaskOutputs(0.0, depth=depth))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize(("name", "partial"), [("a.rrd", "a.rrd.partial"), ("a.mjpeg", "a.partial.mjpeg")])
def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(name: str, partial: str, tmp_path: Path) -> None:
    if name.endswith("rrd"):
        pytest.importorskip("rerun")
    command = [sys.executable, "-c", FULL, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"{name} cannot be written: File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [partial]


@pytest.mark.parametrize("name", ["film.mjpeg", "film.mp4"])
def test_a_film_shows_the_frame_and_its_maps(name: str, tmp_path: Path) -> None:
    pixels, labels = PIXELS.repeat(8, 0).repeat(8, 1), LABELS.repeat(8, 0).repeat(8, 1)
    outputs = TaskOutputs(0.0, semseg=labels, depth=DEPTH.repeat(8, 0).repeat(8, 1))
    reel = Film(tmp_path / name, TASKS)
    for index in range(5):
        reel.write(Frame("a", pixels, 100 + index / 25), outputs)
    assert not (tmp_path / name).exists()
    reel.close(whole=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    capture = cv2.VideoCapture(str(tmp_path / name))
    read = []
    while (found := capture.read())[0]:
        read.append(found[1][:, :, ::-1])
    assert len(read) == 5
    if name.endswith("mp4"):
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25, rel=0.01)
    expected = side_by_side([pixels, colourise(labels, TASKS[0]), colourise(outputs.maps["depth"], TASKS[1])])
    assert read[4].shape == expected.shape == (96, 128, 3)
    assert np.abs(read[4].astype(int) - expected).mean() < 8


def test_films_of_one_frame_and_of_none(tmp_path: Path) -> None:
    one, none = Film(tmp_path / "one.mp4", TASKS), Film(tmp_path / "none.mjpeg", TASKS)
    one.write(Frame("a", PIXELS, 0.0), OUTPUTS)
    one.close(whole=True)
    none.close(whole=True)
    assert [path.name for path in tmp_path.iterdir()] == ["one.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "one.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 1


def test_motion_jpeg_needs_no_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setitem(sys.modules, "cv2", None)
    reel = Film(tmp_path / "film.mjpeg", TASKS)
    for index in range(3):
        reel.write(Frame("a", PIXELS, index / 10), OUTPUTS)
    reel.close(whole=True)
    parts = (tmp_path / "film.mjpeg").read_bytes().split(b"\xff\xd8\xff")[1:]
    assert [image.open(io.BytesIO(b"\xff\xd8\xff" + part)).size for part in parts] == [(16, 12)] * 3
    with pytest.raises(BackendMissing, match="opencv"):
        Film(tmp_path / "film.mp4", TASKS)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BackendMissing, match="writing motion JPEG needs pillow"):
        Film(tmp_path / "film.mjpeg", TASKS)


def test_a_disk_that_refuses_ends_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    reel = Film(tmp_path / "film.mjpeg", TASKS)
    reel.write(Frame("a", PIXELS, 0.0), OUTPUTS)
    reel._reel.close()
    monkeypatch.setattr(reel._reel, "_file", Full())
    with pytest.raises(DataError, match=r"film\.mjpeg cannot be written: No space left on device"):
        reel.write(Frame("b", PIXELS, 0.1), OUTPUTS)


def test_a_video_that_did_not_fit_is_not_called_whole(tmp_path: Path) -> None:
    reel = film._Mp4(tmp_path / "a.partial.mp4", tmp_path / "a.mp4")
    reel.start(np.zeros((32, 32, 3), np.uint8), 10.0)
    reel.add(np.zeros((32, 32, 3), np.uint8))
    reel._count = 7
    with pytest.raises(DataError, match=r"a\.mp4 cannot be written: .*a\.partial\.mp4 has 1 of 7 frames"):
        reel.close()


def test_pictures_stand_side_by_side() -> None:
    tall = side_by_side([np.full((3, 5, 3), value, np.uint8) for value in (1, 2, 3)])
    assert tall.shape == (8, 12, 3)
    assert [int(tall[top, left, 0]) for top in (0, 4) for left in (0, 6)] == [1, 2, 3, 0]
    assert side_by_side([PIXELS]).shape == (6, 8, 3)
