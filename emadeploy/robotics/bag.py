"""Recorded robots: the camera images of a ROS 1 bag, a ROS 2 bag or an MCAP file, through rosbags.

What is damaged is passed over: the frames that can be read are given, those that cannot are counted and reported.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import DataError, SpecError, first_line
from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Frame, Lost, OnBad, report
from emadeploy.robotics.ros.camera import read_camera_info
from emadeploy.robotics.ros.images import read_image
from emadeploy.robotics.ros.types import RosbagsTypes, read_header, rosbags_needed
from emadeploy.robotics.salvage import OnDamage, read_past_damage

SUFFIXES = (".bag", ".mcap", ".db3")
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
#: How a topic of packed images ends: '/camera/image_raw/compressed' belongs to the camera of '/camera/image_raw'.
_TRANSPORT = "/compressed"


def split_bag(text: str) -> tuple[Path, str | None] | None:
    """Return path and topic where ``text`` is BAG or BAG:/topic, a bag being a file or a folder of them; else None."""
    file, _, topic = text.partition(":/")
    path = Path(file)
    paths = [path, *path.iterdir()] if path.is_dir() else [path]
    # As rosbag2 names files that it packs as a whole: drive_0.db3.zstd.
    if not any(suffix in SUFFIXES for part in paths for suffix in part.suffixes[-2:]):
        return None
    return path, f"/{topic}" if topic else None


class Bag:
    """The images of one ``topic`` of a recording, the CameraInfo beside it with them.

    ``topic`` may be left out where there is only one of images. Raises DataError where the recording cannot be opened
    or holds no such topic, BackendMissing where rosbags is not installed.
    """

    one_size = True
    live = False

    def __init__(self, path: Path, topic: str | None = None) -> None:
        rosbags_needed("reading bags")
        self._path = path
        self._files = _files_of(path)
        with self._open() as reader:
            self.topic = _chosen(path, reader, topic)
            self._count: int = sum(c.msgcount for c in reader.connections if c.topic == self.topic)
            self._camera_topic = _recorded_camera_topic(reader, self.topic)

    @property
    def length(self) -> int:
        """The number of images, readable or not, as the recording's index tells."""
        return self._count

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield every image. What cannot be read is bad; see :class:`Source`.

        Raises SpecError where the topic has images of a sort that is no camera's.
        """
        damage: list[tuple[int, Exception]] = []
        seen, index = 0, 0
        with self._open() as reader:
            begin = reader.start_time
            camera = self._first_camera(reader)
            topics = (self.topic, self._camera_topic)
            found = _messages(reader, topics, lambda time, error: damage.append((time, error)))
            for time, (connection, data) in found:
                is_image = connection.topic == self.topic
                seen += is_image
                try:
                    message = reader.deserialize(data, connection.msgtype)
                    if not is_image:
                        camera = self._camera(message)
                        continue
                    header = read_header(message, time)
                    pixels = read_image(message)
                except SpecError as error:
                    raise SpecError(f"{self}: {error}") from None
                except Exception as error:  # rosbags raises whatever its parsers meet
                    report(DataError(f"{self} at {_seconds(time - begin)}: {first_line(error)}"), on_bad)
                    continue
                name = f"{self._path.stem}_{index:06d}"
                index += 1
                yield Frame(name, pixels, header.stamp_ns / 1e9, header, camera)
        if damage:
            report(self._lost(damage, self._count - seen, begin), on_bad)

    def __str__(self) -> str:
        return f"{self._path}:{self.topic}"

    def _lost(self, damage: list[tuple[int, Exception]], missing: int, begin: int) -> Lost:
        count = max(missing, 0)
        where = ", ".join(f"after {_seconds(time - begin)}" for time, _ in damage[:5])
        more = f" and {len(damage) - 5} more places" if len(damage) > 5 else ""
        return Lost(
            f"{self} is damaged {where}{more}: {count} of its {self._count} images cannot be read "
            f"({first_line(damage[0][1])})",
            count,
        )

    def _first_camera(self, reader: Any) -> CameraInfo | None:
        """Return the first CameraInfo, which may have been recorded just after the first image."""
        if self._camera_topic is None:
            return None
        for _, (connection, data) in _messages(reader, (self._camera_topic,), lambda time, error: None):
            with suppress(Exception):  # damaged: the next one
                return self._camera(reader.deserialize(data, connection.msgtype))
        return None

    def _camera(self, message: Any) -> CameraInfo:
        # By convention of image_proc: image_rect, image_rect_color.
        return read_camera_info(message, rectified="rect" in self.topic)

    def _open(self) -> AbstractContextManager[Any]:
        return _opened(self._path, self._files)


@contextmanager
def _opened(path: Path, files: list[Path]) -> Iterator[Any]:
    from rosbags.highlevel import AnyReader

    # A ROS 2 bag in SQLite that was recorded before Iron does not tell what its messages look like.
    try:
        reader = AnyReader(files, default_typestore=RosbagsTypes().store)
        reader.open()
    except Exception as error:  # whatever its parsers meet
        raise DataError(
            f"{path} cannot be opened as a bag: {first_line(error).rstrip('.')}; if its recording was cut off, mend it "
            "with 'mcap recover', 'ros2 bag reindex', 'rosbag reindex' or SQLite's '.recover'"
        ) from None
    try:
        yield reader
    finally:
        reader.close()


def _files_of(path: Path) -> list[Path]:
    """Return what rosbags opens together: a file, a ROS 2 bag with its metadata, or the files in a folder without."""
    if not path.exists():
        raise DataError(f"source {path} does not exist")
    if not path.is_dir() or (path / "metadata.yaml").exists():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    kinds = {file.suffix for file in files}
    if len(kinds) != 1:
        raise DataError(f"{path} has files of {' and '.join(sorted(kinds)) or 'no kind of bag'}; expected one bag")
    return files


def _chosen(path: Path, reader: Any, topic: str | None) -> str:
    found: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
    images = sorted(name for name, kind in found.items() if kind in _IMAGES)
    listed = "; its topics with images: " + ", ".join(images) if images else "; it has no topic with images"
    if topic is None:
        if len(images) != 1:
            raise DataError(f"{path} has {len(images)} topics with images; name one as {path}:/topic{listed}")
        return images[0]
    if topic not in found:
        raise DataError(f"{path} has no topic {topic}{listed}")
    if topic not in images:
        raise DataError(f"{path}:{topic} holds {found[topic]}, no images{listed}")
    return topic


def camera_topic(topic: str) -> str:
    """Return the topic of CameraInfo beside one of images: '/camera/camera_info' for '/camera/image_raw'."""
    folder, slash, _ = topic.removesuffix(_TRANSPORT).rpartition("/")
    return f"{folder}{slash}camera_info"


def _recorded_camera_topic(reader: Any, topic: str) -> str | None:
    beside = camera_topic(topic)
    return beside if any(c.topic == beside and c.msgtype == _CAMERA_INFO for c in reader.connections) else None


def _messages(reader: Any, topics: tuple[str | None, ...], on_damage: OnDamage) -> Iterator[tuple[int, Any]]:
    """Yield (nanoseconds, (connection, data)) of the topics as far as they can be read."""
    chosen = [c for c in reader.connections if c.topic in topics]

    def read_from(start: int | None) -> Iterator[tuple[int, Any]]:
        for part in reader.readers:
            if hasattr(part, "current_chunk"):
                # A ROS 1 chunk that could not be unpacked has closed the one before: unpack anew.
                part.current_chunk = (-1, io.BytesIO())
        for connection, time, data in reader.messages(chosen, start=start):
            yield time, (connection, data)

    return read_past_damage(read_from, reader.start_time, reader.end_time, on_damage)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.3f} s"
