"""The shell for rclpy: without ROS it says how to get it; with a stand-in for ROS it wires everything up."""

import array
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import bags
import numpy as np
import pytest
import rclpy_fake

from emadeploy.contract.errors import BackendMissing
from emadeploy.robotics.ros.camera import camera_info_message

pytest.importorskip("cv2")
pytest.importorskip("rosbags")
pytest.importorskip("onnxruntime")

NAME = "emadeploy.robotics.ros2_node"
DRIVE = bags.Drive()


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[rclpy_fake.Ros]:
    made = rclpy_fake.install(monkeypatch)
    sys.modules.pop(NAME, None)
    yield made
    sys.modules.pop(NAME, None)


@pytest.fixture
def module(ros: rclpy_fake.Ros) -> ModuleType:
    return importlib.import_module(NAME)


def message(module: ModuleType, index: int) -> Any:
    types, header = module.RclpyTypes(), DRIVE.header(index)
    return bags.image(types, header, DRIVE.pixels(index))


def until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened")


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed")
def test_without_ros_the_import_says_how_to_get_it() -> None:
    sys.modules.pop(NAME, None)
    with pytest.raises(BackendMissing, match=r"needs rclpy, which comes with ROS 2 .*source /opt/ros/\$ROS_DISTRO"):
        importlib.import_module(NAME)


def test_without_vision_msgs_too(ros: rclpy_fake.Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", None)
    with pytest.raises(BackendMissing, match=r"needs vision_msgs.msg, .*apt install ros-\$ROS_DISTRO-vision-msgs"):
        importlib.import_module(NAME)


def test_images_become_maps_on_the_topics_of_the_node(
    ros: rclpy_fake.Ros, module: ModuleType, make_artifact: Callable[..., Path]
) -> None:
    ros.parameters = {"artifact": str(make_artifact()), "image_topic": "/camera/image_raw", "threads": 1}
    ros.parameters |= {"publish_normals": False, "depth": 3}

    def spin(node: Any) -> None:
        kind, on_image, qos = ros.subscriptions["/camera/image_raw"]
        assert kind is sys.modules["sensor_msgs.msg"].Image
        assert (qos.depth, qos.reliability, qos.history) == (3, "best effort", "keep last")
        _, on_camera_info, _ = ros.subscriptions["/camera/camera_info"]
        on_camera_info(camera_info_message(module.RclpyTypes(), bags.CAMERA, DRIVE.header(0)))
        on_image(message(module, 0))
        until(lambda: bool(ros.published["/emadeploy/camera_info"]))
        (period, tell), *_ = ros.timers
        assert period == 1.0
        tell()
        raise KeyboardInterrupt

    ros.spin = spin
    assert module.main([]) == 0
    assert not ros.running
    names = ["camera_info", "depth", "label_info", "labels", "points"]
    topics = [f"/emadeploy/{name}" for name in names]
    assert sorted(ros.published) == sorted(["/diagnostics", *topics])
    assert all(len(found) == 1 for found in ros.published.values())
    assert {ros.qos[topic].reliability for topic in topics} == {"reliable"}
    depth = ros.published["/emadeploy/depth"][0]
    assert isinstance(depth.data, array.array)
    assert np.frombuffer(depth.data, np.float32).size == bags.HEIGHT * bags.WIDTH
    assert depth.header.frame_id == "camera_link"
    (status,) = ros.published["/diagnostics"][0].status
    assert status.level in (b"\x00", b"\x03")
    assert status.name == "emadeploy: tiny"


def test_topics_without_listeners_cost_nothing(
    ros: rclpy_fake.Ros, module: ModuleType, make_artifact: Callable[..., Path]
) -> None:
    ros.parameters = {"artifact": str(make_artifact()), "image_topic": "front/image_rect/compressed"}
    ros.deaf = {"/emadeploy/labels", "/emadeploy/label_info", "/emadeploy/normals", "/emadeploy/points"}
    node = module.EmadeployNode()
    try:
        kind, on_image, _ = ros.subscriptions["/front/image_rect/compressed"]
        assert kind is sys.modules["sensor_msgs.msg"].CompressedImage
        assert "/front/camera_info" in ros.subscriptions
        on_image(message(module, 0))
        until(lambda: bool(ros.published["/emadeploy/depth"]))
    finally:
        node.close()
    assert [topic for topic, found in ros.published.items() if found] == ["/emadeploy/depth"]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "SpecError: parameter 'artifact' is not set"),
        ({"artifact": "nowhere"}, "ArtifactError: nowhere does not exist"),
        (
            {"artifact": "x", "reliability": "some"},
            "SpecError: parameter 'reliability': 'some' is unknown; known: best_",
        ),
        ({"artifact": "x", "health": "some"}, "SpecError: parameter 'health': 'some' is unknown; known: auto, on, off"),
    ],
)
def test_parameters_that_make_no_sense_end_it_in_one_line(
    ros: rclpy_fake.Ros,
    module: ModuleType,
    capsys: pytest.CaptureFixture[str],
    parameters: dict[str, Any],
    says: str,
) -> None:
    ros.parameters = parameters
    assert module.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not ros.running


def test_the_stand_in_is_as_strict_as_rclpy(module: ModuleType) -> None:
    types = module.RclpyTypes()
    for fields, says in (
        ({"data": np.zeros(3, np.uint8)}, "Image.data is ndarray"),
        ({"height": np.int64(3)}, "Image.height is int64"),
        ({"encoding": 3}, "Image.encoding is int"),
        ({"colour": 3}, "has no"),
        ({"width": -1}, "does not fit uint32"),
    ):
        with pytest.raises(AssertionError, match=says):
            types.make("sensor_msgs/msg/Image", **fields)
