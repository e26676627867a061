"""Messages without a ROS install: the type store of rosbags, and vision_msgs, which it does not bring along."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing
from emadeploy.robotics.frame import Header

# Fields of vision_msgs (ros-perception/vision_msgs, branch ros2, Apache-2.0). A definition is an interface: its names,
# types and order are what makes a message the same message.
_VISION_MSGS = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": ("std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"),
}


class Types(Protocol):
    """Makes messages: of the classes of an installed ROS, or of those of rosbags."""

    def make(self, name: str, /, **fields: Any) -> Any:
        """Return a message 'package/msg/Name'; every field must be given."""

    def octets(self, array: npt.NDArray[Any]) -> Any:
        """Return the bytes of an array as the field of a uint8[]."""

    def doubles(self, values: Any) -> Any:
        """Return numbers as the field of a float64[]."""

    def byte(self, value: int) -> Any:
        """Return a number as the field of a byte."""


class RosbagsTypes:
    """The messages of ROS 2 by rosbags; raises BackendMissing where it is not installed."""

    def __init__(self) -> None:
        rosbags_needed("ROS messages")
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        # The messages in use here are the same in every release since Humble.
        self.store = get_typestore(Stores.ROS2_HUMBLE)
        for name, text in _VISION_MSGS.items():
            self.store.register(get_types_from_msg(text, name))

    def make(self, name: str, /, **fields: Any) -> Any:
        """Return a message; see :class:`Types`."""
        return self.store.types[name](**fields)

    def octets(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return the bytes of an array, flat."""
        return np.ascontiguousarray(array).view(np.uint8).reshape(-1)

    def doubles(self, values: Any) -> npt.NDArray[np.float64]:
        """Return numbers as an array."""
        return np.asarray(values, np.float64)

    def byte(self, value: int) -> int:
        """Return the number."""
        return value

    def definition(self, name: str) -> str:
        """Return the definition of a message with all that it holds, as MCAP stores it ('ros2msg')."""
        text, _ = self.store.generate_msgdef(name, ros_version=2)
        return str(text)

    def serialise(self, message: Any) -> bytes:
        """Return a message in CDR."""
        return bytes(self.store.serialize_cdr(message, message.__msgtype__))


def header_message(types: Types, header: Header) -> Any:
    """Return a ``std_msgs/Header``."""
    seconds, nanoseconds = divmod(header.stamp_ns, 10**9)
    stamp = types.make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return types.make("std_msgs/msg/Header", stamp=stamp, frame_id=header.frame_id)


def read_header(message: Any, received_ns: int) -> Header:
    """Return the header of a message that came, or was recorded, at ``received_ns``."""
    stamp = message.header.stamp
    return Header(int(stamp.sec) * 10**9 + int(stamp.nanosec), str(message.header.frame_id), received_ns)


def rosbags_needed(who: str) -> None:
    """Raise BackendMissing where rosbags is not installed."""
    try:
        import rosbags.typesys  # noqa: F401
    except ModuleNotFoundError:
        raise BackendMissing.of(who, "rosbags", "robotics") from None
