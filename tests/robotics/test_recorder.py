"""The maps of frames as messages in a recording, read back by Foxglove's reader of ROS 2."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bags
import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import DataError
from emadeploy.contract.geometry import back_project
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.bag import Bag
from emadeploy.robotics.frame import Frame, Lost
from emadeploy.robotics.lens import Lens
from emadeploy.robotics.process import process
from emadeploy.robotics.recorder import FRAME_ID, Recorder
from emadeploy.robotics.sinks import open_sinks

pytest.importorskip("cv2")
pytest.importorskip("rosbags")
mcap_ros2 = pytest.importorskip("mcap_ros2.reader")

DTYPES = {"mono8": np.uint8, "mono16": np.uint16, "32FC1": np.float32, "32FC3": np.float32}
POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "<u4"), ("label", "<u2"), ("", "<u2")])

DEPTH = np.array([[0.0, 1.5, 2.0], [np.inf, 3.0, np.nan]], np.float32)
LABELS = np.array([[0, 1, 255], [2, 2, 1]], np.uint8)
SEMSEG, METRES, NORMALS = (
    TaskSpec("semseg", class_names=("floor", "wall", "cup")),
    TaskSpec("depth"),
    TaskSpec("normals"),
)


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return topic -> [(nanoseconds, message)]."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for message in mcap_ros2.read_ros2_messages(path):
        found.setdefault(message.channel.topic, []).append((message.log_time_ns, message.ros_msg))
    return found


def array(message: Any) -> np.ndarray[Any, Any]:
    """Return the map of an Image, each row checked against its step."""
    dtype = np.dtype(DTYPES[message.encoding])
    channels = 3 if message.encoding == "32FC3" else 1
    assert message.step == message.width * channels * dtype.itemsize
    assert len(message.data) == message.step * message.height
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels).squeeze()


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def record(path: Path, tasks: tuple[TaskSpec, ...], outputs: TaskOutputs, lens: Lens, **fields: Any) -> list[str]:
    said: list[str] = []
    recorder = Recorder(path, tasks, lens, said.append)
    recorder.write(Frame("a", np.zeros((2, 3, 3), np.uint8), outputs.stamp, **fields), outputs)
    recorder.close(whole=True)
    return said


def test_a_drive_becomes_a_recording_of_its_maps(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    drive = bags.Drive(count=3)
    source = Bag(bags.write_ros2(tmp_path / "drive", drive))
    with load(make_artifact()) as perception:
        tasks = perception.spec.tasks
        summary = process(perception, source, open_sinks(tasks, save=tmp_path / "out.mcap"))
        expected = [perception(drive.pixels(index)) for index in range(3)]
    assert (summary.frames, summary.bad) == (3, [])
    found = read(tmp_path / "out.mcap")
    names = ["depth", "points", "labels", "label_info", "normals", "camera_info"]
    assert sorted(found) == sorted(f"/emadeploy/{name}" for name in names)
    for topic, messages in found.items():
        headers = [drive.header(index) for index in range(3)]
        assert [time for time, _ in messages] == [header.received_ns for header in headers], topic
        assert [stamp_ns(message) for _, message in messages] == [header.stamp_ns for header in headers], topic
        assert {message.header.frame_id for _, message in messages} == {"camera_link"}
    for index, outputs in enumerate(expected):
        messages = {name: found[f"/emadeploy/{name}"][index][1] for name in names}
        assert outputs.depth is not None
        assert messages["depth"].encoding == "32FC1"
        valid = outputs.depth > 0
        assert 0 < valid.sum() < valid.size
        np.testing.assert_array_equal(array(messages["depth"]), np.where(valid, outputs.depth, np.nan))
        assert messages["labels"].encoding == "mono8"
        np.testing.assert_array_equal(array(messages["labels"]), outputs.semseg)
        assert messages["normals"].encoding == "32FC3"
        np.testing.assert_array_equal(array(messages["normals"]), outputs.normals)
        classes = {entry.class_id: entry.class_name for entry in messages["label_info"].class_map}
        assert classes == {**dict(enumerate(tasks[0].class_names)), 255: "UNLABELED"}
        _check_cloud(messages["points"], outputs, drive.pixels(index))
        info = messages["camera_info"]
        assert (info.height, info.width) == (bags.HEIGHT, bags.WIDTH)
        assert tuple(info.k) == bags.CAMERA.k
        assert tuple(info.p) == bags.CAMERA.p


def _check_cloud(message: Any, outputs: TaskOutputs, pixels: np.ndarray[Any, Any]) -> None:
    fields = [(field.name, field.offset, field.datatype, field.count) for field in message.fields]
    assert fields == [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1), ("label", 16, 4, 1)]
    points = np.frombuffer(message.data, POINT)
    assert (message.height, message.width, message.point_step) == (1, len(points), POINT.itemsize)
    assert message.row_step == len(message.data)
    assert message.is_dense
    assert outputs.depth is not None
    assert outputs.semseg is not None
    valid = outputs.depth > 0
    expected = back_project(outputs.depth, bags.CAMERA.intrinsics(outputs.depth.shape))
    np.testing.assert_allclose(points["xyz"], expected[valid], rtol=1e-6)
    np.testing.assert_array_equal(points["label"], outputs.semseg[valid])
    colours = points["rgb"][:, None] >> np.array([16, 8, 0]) & 255
    np.testing.assert_array_equal(colours, pixels[valid])


def test_rosbags_reads_it_too(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    from rosbags.highlevel import AnyReader

    drive = bags.Drive(count=2)
    with load(make_artifact()) as perception:
        sinks = open_sinks(perception.spec.tasks, save=tmp_path / "out.mcap")
        process(perception, Bag(bags.write_ros1(tmp_path / "drive.bag", drive)), sinks)
    with AnyReader([tmp_path / "out.mcap"]) as reader:
        assert reader.message_count == 12
        for connection, _, data in reader.messages():
            assert reader.deserialize(data, connection.msgtype).header.frame_id == "camera_link"


def test_no_answer_is_nan_in_depth_255_in_labels_and_no_point(tmp_path: Path) -> None:
    outputs = TaskOutputs(12.5, semseg=LABELS, depth=DEPTH)
    said = record(tmp_path / "out.mcap", (SEMSEG, METRES), outputs, Lens("2,2,1,0.5"))
    assert said == []
    found = read(tmp_path / "out.mcap")
    (time, depth), *_ = found["/emadeploy/depth"]
    np.testing.assert_array_equal(array(depth), np.float32([[np.nan, 1.5, 2.0], [np.nan, 3.0, np.nan]]))
    # A frame of no recording: its time in seconds, and a coordinate frame by convention.
    assert (time, stamp_ns(depth), depth.header.frame_id) == (12_500_000_000, 12_500_000_000, FRAME_ID)
    np.testing.assert_array_equal(array(found["/emadeploy/labels"][0][1]), LABELS)
    points = np.frombuffer(found["/emadeploy/points"][0][1].data, POINT)
    np.testing.assert_allclose(points["xyz"], [[0, -0.375, 1.5], [1, -0.5, 2], [0, 0.75, 3]])
    assert points["label"].tolist() == [1, 65535, 2]
    # Intrinsics that were given are told as a CameraInfo.
    assert found["/emadeploy/camera_info"][0][1].k == [2, 0, 1, 0, 2, 0.5, 0, 0, 1]


def test_labels_of_sixteen_bits_and_other_tasks(tmp_path: Path) -> None:
    parts = TaskSpec("human_parts", class_names=("none", "head"))
    tasks = (SEMSEG, parts, TaskSpec("edge"), TaskSpec("saliency"))
    wide = np.where(LABELS == 255, 65535, LABELS).astype(np.uint16)
    share = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    outputs = TaskOutputs(0.0, semseg=wide, human_parts=LABELS % 2, edge=share, saliency=1 - share)  # type: ignore[arg-type]
    record(tmp_path / "out.mcap", tasks, outputs, Lens())
    found = {topic: messages[0][1] for topic, messages in read(tmp_path / "out.mcap").items()}
    names = ["labels", "label_info", "human_parts", "human_parts_info", "edge", "saliency"]
    assert sorted(found) == sorted(f"/emadeploy/{name}" for name in names)
    assert found["/emadeploy/labels"].encoding == "mono16"
    np.testing.assert_array_equal(array(found["/emadeploy/labels"]), wide)
    assert found["/emadeploy/label_info"].class_map[-1].class_id == 65535
    np.testing.assert_array_equal(array(found["/emadeploy/human_parts"]), LABELS % 2)
    assert [entry.class_name for entry in found["/emadeploy/human_parts_info"].class_map] == [
        "none",
        "head",
        "UNLABELED",
    ]
    np.testing.assert_array_equal(array(found["/emadeploy/saliency"]), 1 - share)


def test_what_cannot_be_recorded_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    outputs = TaskOutputs(0.0, depth=np.ones((2, 3), np.float32))
    record(tmp_path / "a.mcap", (METRES,), outputs, Lens(None, said.append))
    assert said == ["no points: no intrinsics are recorded; give them with --intrinsics"]
    assert sorted(read(tmp_path / "a.mcap")) == ["/emadeploy/depth"]

    inverse = TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger")
    told = record(
        tmp_path / "b.mcap", (inverse, NORMALS), replace(outputs, normals=np.ones((2, 3, 3), np.float32)), Lens()
    )
    assert told == ["no depth and no points are recorded: the model's depth is inverse, ROS (REP-118) has it in metres"]
    assert sorted(read(tmp_path / "b.mcap")) == ["/emadeploy/normals"]


def test_damage_in_a_drive_costs_only_what_is_damaged(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    path = bags.write_mcap(tmp_path / "drive.mcap", bags.Drive(count=12), chunk=20_000)
    bags.spoil_chunks(path, 1)
    told: list[str] = []
    with load(make_artifact()) as perception:
        sinks = open_sinks(perception.spec.tasks, save=tmp_path / "out.mcap")
        summary = process(perception, Bag(path), sinks, on_bad=told.append)
    assert summary.frames + summary.lost == 12
    assert summary.bad == told
    assert len(told) == 1
    assert f"{summary.lost} of its 12 images cannot be read" in told[0]
    assert len(read(tmp_path / "out.mcap")["/emadeploy/depth"]) == summary.frames


def test_an_error_in_the_middle_leaves_a_partial_recording(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    class Failing(Bag):
        def frames(self, on_bad=None):
            yield from list(super().frames(on_bad))[:2]
            raise OSError("unplugged")

    source = Failing(bags.write_mcap(tmp_path / "drive.mcap", bags.Drive()))
    with load(make_artifact()) as perception, pytest.raises(OSError, match="unplugged"):
        process(perception, source, open_sinks(perception.spec.tasks, save=tmp_path / "out.mcap"))
    assert not (tmp_path / "out.mcap").exists()
    assert len(read(tmp_path / "out.mcap.partial")["/emadeploy/depth"]) == 2


FULL = """
import resource, sys
from pathlib import Path
from emadeploy import load
from emadeploy.contract.errors import DataError
from emadeploy.robotics.process import process
from emadeploy.robotics.sinks import open_sinks
from emadeploy.robotics.sources import open_source

resource.setrlimit(resource.RLIMIT_FSIZE, (1_600_000, 1_600_000))
with load(sys.argv[1]) as perception:
    try:
        process(perception, open_source(sys.argv[2]), open_sinks(perception.spec.tasks, save=Path(sys.argv[3])))
    except DataError as error:
        print(error)
"""


def test_a_full_disk_ends_it_with_what_was_written(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    source = bags.write_mcap(tmp_path / "drive.mcap", bags.Drive(count=40))
    arguments = [sys.executable, "-c", FULL, str(make_artifact()), str(source), str(tmp_path / "out.mcap")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "out.mcap cannot be written: File too large; the " in done.stdout
    found = read(tmp_path / "out.mcap.partial")
    assert 10 <= len(found["/emadeploy/depth"]) < 40
    assert not math.isnan(np.nanmax(array(found["/emadeploy/depth"][-1][1])))


def test_a_lost_part_counts_its_frames() -> None:
    error = Lost("gone", 7)
    assert isinstance(error, DataError)
    assert error.frames == 7
