"""Recordings for the tests: a camera of 60 x 40 pixels at ten frames a second, in every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Header
from emadeploy.robotics.ros.camera import camera_info_message
from emadeploy.robotics.ros.types import RosbagsTypes, header_message

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
TOPIC, INFO_TOPIC = "/camera/image_raw", "/camera/camera_info"
HEIGHT, WIDTH = 40, 60
#: Not a multiple of anything that a float could hold.
BEGIN = 1_700_000_000_123_456_789
STEP = 100_000_001
CAMERA = CameraInfo(
    HEIGHT,
    WIDTH,
    (50.0, 0.0, 30.0, 0.0, 51.0, 20.0, 0.0, 0.0, 1.0),
    (48.0, 0.0, 29.0, 0.0, 0.0, 49.0, 19.0, 0.0, 0.0, 0.0, 1.0, 0.0),
)


@dataclass
class Drive:
    """What is recorded: ``count`` images, and a CameraInfo after each where there is a ``camera``."""

    count: int = 4
    camera: CameraInfo | None = CAMERA
    topics: tuple[str, ...] = (TOPIC,)
    types: RosbagsTypes = field(default_factory=RosbagsTypes)

    def pixels(self, index: int) -> np.ndarray[Any, Any]:
        """Return image ``index``: uint8 (H, W, 3) RGB."""
        return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

    def header(self, index: int) -> Header:
        """Return the header of image ``index``, which is recorded a millisecond after its capture."""
        stamp = BEGIN + index * STEP
        return Header(stamp, "camera_link", stamp + 10**6)

    def messages(self) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, nanoseconds, message)."""
        for index in range(self.count):
            header = self.header(index)
            for topic in self.topics:
                yield topic, header.received_ns, image(self.types, header, self.pixels(index))
            if self.camera is not None:
                yield INFO_TOPIC, header.received_ns + 1, camera_info_message(self.types, self.camera, header)


def image(
    types: RosbagsTypes, header: Header, array: np.ndarray[Any, Any], encoding: str = "rgb8", **fields: Any
) -> Any:
    """Return an Image of an array whose rows are those of the message."""
    values = {
        "header": header_message(types, header),
        "height": array.shape[0],
        "width": array.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": array[0].nbytes,
        "data": types.octets(array),
    }
    return types.make(IMAGE, **{**values, **fields})


def write_ros2(path: Path, drive: Drive, storage: str = "mcap") -> Path:
    """Write a ROS 2 bag, a folder, by rosbags; ``storage`` 'mcap' or 'sqlite3'."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections: dict[str, Any] = {}
        for topic, time, message in drive.messages():
            if topic not in connections:
                kind = message.__msgtype__
                connections[topic] = writer.add_connection(topic, kind, typestore=drive.types.store)
            writer.write(connections[topic], time, drive.types.serialise(message))
    return path


def write_ros1(path: Path, drive: Drive, chunk: int = 1 << 20) -> Path:
    """Write a ROS 1 bag by rosbags, packed; a chunk ends after ``chunk`` bytes."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer(path)
    writer.set_compression(Writer.CompressionFormat.BZ2)
    writer.chunk_threshold = chunk
    with writer:
        connections: dict[str, Any] = {}
        for topic, time, message in drive.messages():
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time, bytes(store.serialize_ros1(_as_ros1(store, message), kind)))
    return path


def write_mcap(path: Path, drive: Drive, chunk: int = 1, **settings: Any) -> Path:
    """Write one MCAP file by Foxglove's own library; a chunk ends after ``chunk`` bytes."""
    from mcap.writer import CompressionType, Writer

    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk, compression=CompressionType[settings.get("compression", "ZSTD")])
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for topic, time, message in drive.messages():
            if topic not in channels:
                kind = message.__msgtype__
                schema = writer.register_schema(kind, "ros2msg", drive.types.definition(kind).encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], time, drive.types.serialise(message), time)
        writer.finish()
    return path


def spoil_chunks(path: Path, *numbers: int) -> None:
    """Overwrite the middle of chunks of an MCAP file, so that their checksums do not hold."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    indexes = sorted(summary.chunk_indexes, key=lambda index: index.chunk_start_offset)
    with path.open("r+b") as file:
        for number in numbers:
            index = indexes[number]
            file.seek(index.chunk_start_offset + index.chunk_length - index.compressed_size // 2)
            file.write(b"\xa5" * 64)


def _as_ros1(store: Any, message: Any) -> Any:
    """Return a message of ROS 2 as the one of ROS 1, whose header counts and whose matrices are in capitals."""
    kind = store.types[message.__msgtype__]
    stamp = store.types["builtin_interfaces/msg/Time"](message.header.stamp.sec, message.header.stamp.nanosec)
    header = store.types["std_msgs/msg/Header"](seq=0, stamp=stamp, frame_id=message.header.frame_id)
    fields = {name.upper() if name in "dkrp" else name: value for name, value in vars(message).items()}
    if "roi" in fields:
        fields["roi"] = store.types["sensor_msgs/msg/RegionOfInterest"](**vars(message.roi))
    return kind(**{**{name: value for name, value in fields.items() if name != "__msgtype__"}, "header": header})
