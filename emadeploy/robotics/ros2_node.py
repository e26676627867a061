"""A ROS 2 node: images in, maps out. ``python3 -m emadeploy.robotics.ros2_node --ros-args -p artifact:=DIR``

A thin shell around :class:`emadeploy.robotics.ros.perceiver.Perceiver`; docs/ros2.md has its parameters and topics.
It is imported where ROS 2 is installed; elsewhere the import raises BackendMissing, which says how to get it.
"""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing, EmadeployError, SpecError, one_line
from emadeploy.contract.plain import one_of
from emadeploy.robotics.bag import camera_topic
from emadeploy.robotics.ros.maps import topics_of
from emadeploy.robotics.ros.perceiver import HEALTH, Outlet, Perceiver
from emadeploy.runtime import load

try:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import ExternalShutdownException
    from rclpy.node import Node
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from vision_msgs.msg import LabelInfo  # noqa: F401 - asked for here, so that its absence is told at once
except ModuleNotFoundError as missing:
    raise BackendMissing(
        f"the ROS 2 node needs {missing.name}, which comes with ROS 2 (https://docs.ros.org), not with pip: "
        "'apt install ros-$ROS_DISTRO-vision-msgs', 'source /opt/ros/$ROS_DISTRO/setup.bash', and install emadeploy "
        "for the Python of that ROS; recorded bags need none of it: emadeploy run --source BAG"
    ) from None

RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}
#: Parameter -> its default. 'publish_NAME' follow, one for every topic that the artifact can give, true.
PARAMETERS: dict[str, Any] = {
    "artifact": "",
    "image_topic": "image",
    "camera_info_topic": "",
    "reliability": "best_effort",
    "depth": 1,
    "map_reliability": "reliable",
    "map_depth": 1,
    "intrinsics": "",
    "health": "auto",
    "threads": 0,
    "diagnostics_period": 1.0,
}


class RclpyTypes:
    """The messages of the installed ROS; see :class:`emadeploy.robotics.ros.types.Types`."""

    def type_of(self, name: str) -> Any:
        """Return the class of 'package/msg/Name'."""
        package, _, kind = name.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), kind)

    def make(self, name: str, /, **fields: Any) -> Any:
        """Return a message."""
        return self.type_of(name)(**fields)

    def octets(self, values: npt.NDArray[Any]) -> array.array[int]:
        """Return the bytes of an array as rclpy takes them without looking at each."""
        octets = array.array("B")
        octets.frombytes(np.ascontiguousarray(values).tobytes())
        return octets

    def doubles(self, values: Any) -> array.array[float]:
        """Return numbers as rclpy takes them without looking at each."""
        return array.array("d", values)

    def byte(self, value: int) -> bytes:
        """Return a number as rclpy has a byte."""
        return bytes([value])


class EmadeployNode(Node):  # type: ignore[misc]
    """The node. Raises EmadeployError where its parameters make no sense or the artifact cannot be loaded."""

    def __init__(self, **options: Any) -> None:
        super().__init__("emadeploy", **options)
        p = {name: self.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
        if not p["artifact"]:
            raise SpecError("parameter 'artifact' is not set: the folder made by emadeploy export")
        for name in ("reliability", "map_reliability"):
            one_of(f"parameter {name!r}:", p[name], tuple(RELIABILITY))
        one_of("parameter 'health':", p["health"], HEALTH)
        self._types = RclpyTypes()
        self._perception = load(p["artifact"], threads=p["threads"] or None)
        known = topics_of(self._perception.spec.tasks)
        wanted = frozenset(name for name in known if self.declare_parameter(f"publish_{name}", True).value)
        out = _qos(p["map_reliability"], p["map_depth"])
        self._outputs = {
            name: self.create_publisher(self._types.type_of(known[name]), f"~/{name}", out) for name in wanted
        }
        self._perceiver = Perceiver(
            self._perception,
            self._types,
            Outlet(
                publish=lambda topic, kind, message: self._outputs[topic].publish(message),
                anybody=lambda topic: self._outputs[topic].get_subscription_count() > 0,
            ),
            topics=wanted,
            intrinsics=p["intrinsics"] or None,
            rectified="rect" in self.resolve_topic_name(p["image_topic"]),
            health=p["health"],
            now=lambda: self.get_clock().now().nanoseconds,
        )
        self._perceiver.start()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(p["diagnostics_period"], lambda: self._diagnostics.publish(self._perceiver.diagnostics()))
        self._subscribe(p)

    def close(self) -> None:
        """End the work and free the engine."""
        self._perceiver.close()
        self._perception.close()

    def _subscribe(self, p: dict[str, Any]) -> None:
        topic, qos = p["image_topic"], _qos(p["reliability"], p["depth"])
        packed = self.resolve_topic_name(topic).endswith("/compressed")
        self.create_subscription(CompressedImage if packed else Image, topic, self._perceiver.on_image, qos)
        info = p["camera_info_topic"] or camera_topic(topic)
        self.create_subscription(CameraInfo, info, self._perceiver.on_camera_info, qos)
        self.get_logger().info(f"{self._perception.manifest.target}: {topic} ({p['reliability']}), camera {info}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status, 1 where it could not start."""
    rclpy.init(args=arguments)
    node = None
    try:
        node = EmadeployNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except EmadeployError as error:
        print(f"emadeploy: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _qos(reliability: str, depth: int) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=RELIABILITY[reliability])


if __name__ == "__main__":
    sys.exit(main())
