"""The node without ROS: images in, maps and diagnostics out, by the real definitions of the messages."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import bags
import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.health import Health, HealthRange
from emadeploy.robotics.ros.camera import camera_info_message
from emadeploy.robotics.ros.mailbox import Mailbox
from emadeploy.robotics.ros.perceiver import Outlet, Perceiver
from emadeploy.runtime import capture

pytest.importorskip("cv2")
pytest.importorskip("rosbags")
pytest.importorskip("onnxruntime")

DRIVE = bags.Drive()
TYPES = DRIVE.types
RANGE = HealthRange.of([Health(0.6, 20.0, 0.4, 1.0), Health(0.9, 5.0, 0.9, 4.0)]).to_dict()


class Node:
    """A perceiver and what it published, by topic."""

    def __init__(self, artifact: Path, deaf: frozenset[str] = frozenset(), **settings: Any) -> None:
        self.published: dict[str, list[Any]] = {}
        self.changed = threading.Condition()
        self.perception = load(artifact)
        outlet = Outlet(self._publish, lambda topic: topic not in deaf)
        self.clock = bags.BEGIN + 5 * 10**6
        try:
            self.perceiver = Perceiver(self.perception, TYPES, outlet, **{"now": lambda: self.clock, **settings})
        except BaseException:
            self.perception.close()
            raise

    def _publish(self, topic: str, kind: str, message: Any) -> None:
        assert message.__msgtype__ == kind
        with self.changed:
            self.published.setdefault(topic, []).append(message)
            self.changed.notify()

    def wait(self, topic: str, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.published.get(topic, [])) >= count, 60)

    def status(self) -> tuple[int, str, dict[str, str]]:
        array = self.perceiver.diagnostics()
        TYPES.serialise(array)
        (status,) = array.status
        return status.level, status.message, {entry.key: entry.value for entry in status.values}

    def wait_for_status(self, level: int) -> tuple[int, str, dict[str, str]]:
        seen = []

        def there() -> bool:
            seen.append(self.status())
            return seen[-1][0] == level

        wait_until(there)
        return seen[-1]


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


@pytest.fixture
def open_node(make_artifact: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    made: list[Node] = []

    @contextmanager
    def opened(**settings: Any) -> Iterator[Node]:
        fields = {"health": settings.pop("range")} if "range" in settings else {}
        node = Node(make_artifact(f"artifact{len(made)}", **fields), **settings)
        made.append(node)
        node.perceiver.start()
        try:
            yield node
        finally:
            node.perceiver.close()
            node.perceiver.close()
            node.perception.close()

    return opened


def image(index: int, **fields: Any) -> Any:
    return bags.image(TYPES, DRIVE.header(index), DRIVE.pixels(index), **fields)


def test_an_image_becomes_its_maps(open_node: Any) -> None:
    with open_node() as node:
        node.perceiver.on_camera_info(camera_info_message(TYPES, bags.CAMERA, DRIVE.header(0)))
        node.perceiver.on_image(image(0))
        node.wait("camera_info", 1)
        expected = node.perception(DRIVE.pixels(0))
    assert sorted(node.published) == ["camera_info", "depth", "label_info", "labels", "normals", "points"]
    for (message,) in node.published.values():
        TYPES.serialise(message)
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == bags.BEGIN
        assert message.header.frame_id == "camera_link"
    depth = node.published["depth"][0].data.view(np.float32).reshape(bags.HEIGHT, bags.WIDTH)
    np.testing.assert_array_equal(np.nan_to_num(depth), expected.depth)
    np.testing.assert_array_equal(node.published["labels"][0].data, expected.semseg.ravel())
    assert node.published["points"][0].width == np.count_nonzero(expected.depth)


def test_nothing_is_made_that_nobody_wants(open_node: Any) -> None:
    with open_node(topics=frozenset({"depth", "labels"}), deaf=frozenset({"labels"})) as node:
        node.perceiver.on_image(image(0))
        node.wait("depth", 1)
    assert sorted(node.published) == ["depth"]
    with pytest.raises(SpecError, match=r"'tiny' cannot publish edge; it can: labels, label_info, depth, points, "):
        open_node(topics=frozenset({"edge"})).__enter__()


def test_the_newest_image_is_taken_and_the_rest_counted(open_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    published = threading.Event()
    with open_node() as node:

        def held(topic: str, kind: str, message: Any) -> None:
            published.wait(30)
            node._publish(topic, kind, message)

        monkeypatch.setattr(node.perceiver, "_outlet", Outlet(held))
        for index in range(30):
            node.perceiver.on_image(image(index))
            time.sleep(0.005)
        published.set()
        node.wait("normals", 2)

        def settled() -> bool:
            values = node.status()[2]
            return values["received"] == "30" and 30 - int(values["dropped"]) == len(node.published["normals"])

        wait_until(settled)
        done = len(node.published["normals"])
        newest = node.published["normals"][-1].header.stamp
    assert done < 10
    assert newest.sec * 10**9 + newest.nanosec == DRIVE.header(29).stamp_ns


def test_the_diagnostics_tell_how_it_goes(open_node: Any) -> None:
    with open_node() as node:
        level, message, values = node.status()
        assert (level, message, values["latency_ms"]) == (3, "no image", "")
        node.perceiver.on_image(image(0))
        level, message, values = node.wait_for_status(0)
        assert message.endswith("frames per second, 0 ms")
        assert values["target"] == "onnxruntime-fp32"
        assert (values["latency_ms"], values["age_ms"]) == ("0.0", "5.0")
        assert float(values["frames_per_second"]) > 0
        assert (values["received"], values["dropped"], values["failed"], values["health"]) == ("1", "0", "0", "")
        level, message, values = node.status()
        assert (level, message) == (3, "no image since the last report")


def test_one_bad_image_is_a_warning_and_those_after_it_are_answered(open_node: Any) -> None:
    with open_node() as node:
        node.perceiver.on_image(image(0, step=3))
        wait_until(lambda: node.perceiver._mailbox._waiting is None)
        # What came with the next image is told; that one itself may be dropped while the error waits its turn.
        node.perceiver.on_image(image(1))
        _, message, values = node.wait_for_status(1)
        assert "the message has 7200 bytes in rows of 3" in message
        assert values["failed"] == "1"
        node.perceiver.on_image(image(2))
        node.wait("normals", 1)


def test_images_that_are_all_bad_stop_it(open_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "BAD_IN_A_ROW", 3)
    with open_node() as node:
        for _ in range(3):
            node.perceiver.on_image(image(0, step=3))
            wait_until(lambda: node.perceiver._mailbox._waiting is None)
        assert "in rows of 3" in node.wait_for_status(2)[1]


def test_images_of_no_camera_stop_it_and_say_so(open_node: Any) -> None:
    with open_node() as node:
        node.perceiver.on_image(image(0, encoding="32FC1"))
        _, message, _ = node.wait_for_status(2)
        assert "images in '32FC1' are no camera images" in message


def test_health_is_watched_where_the_artifact_has_a_range(open_node: Any) -> None:
    with open_node(range=RANGE) as node:
        for index in range(8):
            node.perceiver.on_image(image(index))
            node.wait("normals", index + 1)
        _, message, values = node.wait_for_status(1)
        # One convolution with random weights: its maps do not fit together.
        assert "depth, normals and labels fit together by" in message
        assert 0 <= float(values["health"]) < 0.6
    with open_node(range=RANGE, health="off") as node:
        node.perceiver.on_image(image(0))
        assert node.wait_for_status(0)[2]["health"] == ""


def test_settings_that_make_no_sense(make_artifact: Callable[..., Path]) -> None:
    artifact = make_artifact()
    with pytest.raises(ArtifactError, match="keeps no range of health"):
        Node(artifact, health="on")
    with pytest.raises(SpecError, match="health 'maybe' is unknown; known: auto, on, off"):
        Node(artifact, health="maybe")
    with pytest.raises(SpecError, match="expected FX,FY,CX,CY"):
        Node(artifact, intrinsics="wide")


def test_rectified_images_have_the_rectified_camera(open_node: Any) -> None:
    bent = replace(bags.CAMERA, d=(-0.3, 0.1, 0.0, 0.0, 0.0))
    with open_node(rectified=True) as node:
        node.perceiver.on_camera_info(camera_info_message(TYPES, bent, DRIVE.header(0)))
        node.perceiver.on_image(image(0))
        node.wait("camera_info", 1)
        points = node.published["points"][0]
        expected = node.perception(DRIVE.pixels(0)).depth
    found = points.data.reshape(-1, points.point_step)[:, :12].copy().view(np.float32)
    row, column = np.argwhere(expected > 0)[0]
    x = (column - bags.CAMERA.p[2]) / bags.CAMERA.p[0] * expected[row, column]
    assert found[0, 0] == pytest.approx(x, rel=1e-5)


def test_a_mailbox_keeps_the_newest() -> None:
    box = Mailbox(lambda: 77)
    for index in range(3):
        box.put(image(index))
    frames = box.frames()
    frame = next(frames)
    assert frame.header is not None
    assert (frame.header.stamp_ns, frame.header.received_ns) == (DRIVE.header(2).stamp_ns, 77)
    assert (box.received, box.dropped) == (3, 2)
    box.close()
    assert list(frames) == []
