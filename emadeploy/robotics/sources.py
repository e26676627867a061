"""Frames from a picture, a folder of pictures, a video, a recorded robot or a camera, one after the other.

>>> for result in perception.stream("camera:0"):            # doctest: +SKIP
...     steer(result.depth, result.stamp)
>>> for frame in open_source("frames/").frames():           # doctest: +SKIP
...     result = perception(frame.pixels, stamp=frame.stamp)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from emadeploy.contract.errors import DataError
from emadeploy.pictures import SUFFIXES, list_pictures, opencv, read_picture
from emadeploy.robotics.bag import SUFFIXES as SUFFIXES_OF_BAGS
from emadeploy.robotics.bag import Bag, split_bag
from emadeploy.robotics.camera import open_camera
from emadeploy.robotics.frame import Frame, OnBad, check_length, report

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg")


class Source(Protocol):
    """Where frames come from."""

    @property
    def length(self) -> int | None:
        """The number of frames as far as it can be told beforehand; ``None`` where it cannot."""

    @property
    def one_size(self) -> bool:
        """Whether all frames have the size of the first."""

    @property
    def live(self) -> bool:
        """Whether frames come when they happen, not when they are asked for."""

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield the frames in order. What cannot be read is handed to ``on_bad``, by default raised."""


def open_source(text: str | os.PathLike[str]) -> Source:
    """Return the source that ``text`` names.

    FILE, DIR                     a picture or a video; a folder of pictures
    BAG, BAG:/topic               a ROS 1 bag, a ROS 2 bag (its folder) or an MCAP file: the images of one topic
    camera:0, camera:/dev/video2  a camera, through V4L2
    rtsp://..., http://...        a network camera, or a video on a server
    gst:PIPELINE                  whatever GStreamer captures, with an appsink at its end: a Jetson's CSI camera

    Raises DataError where it is missing or holds no frame, SpecError for a camera's name that makes no sense,
    BackendMissing where OpenCV, or for bags rosbags, is not installed.
    """
    if re.match(r"camera:|gst:|rtsp://|https?://", str(text)):
        return open_camera(str(text))
    if bag := split_bag(str(text)):
        return Bag(*bag)
    path = Path(text)
    if path.is_dir():
        return Pictures(list_pictures(path))
    if not path.exists():
        raise DataError(f"source {path} does not exist")
    if path.suffix.lower() in SUFFIXES:
        return Pictures([path])
    if path.suffix.lower() in VIDEOS:
        return Video(path)
    raise DataError(
        f"source {path} is neither a picture ({' '.join(SUFFIXES)}), a video ({' '.join(VIDEOS)}), a "
        f"bag ({' '.join(SUFFIXES_OF_BAGS)}) nor a folder; cameras are called camera:0, rtsp://..., gst:PIPELINE"
    )


class Pictures:
    """Pictures in files, in the order given."""

    one_size = False
    live = False

    def __init__(self, paths: Sequence[Path]) -> None:
        opencv()
        self._paths = tuple(paths)
        # 'a.png' and 'a.jpg' would both be called 'a', and the results of one overwrite those of the other.
        stems = Counter(path.stem for path in paths)
        self._names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]

    @property
    def length(self) -> int:
        """The number of pictures, readable or not."""
        return len(self._paths)

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield every picture; see :class:`Source`."""
        for name, path in zip(self._names, self._paths, strict=True):
            try:
                frame = Frame(name, read_picture(path), path.stat().st_mtime)
            except DataError as error:
                report(error, on_bad)
                continue
            yield frame


class Video:
    """A video file."""

    one_size = True
    live = False

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self._path = path
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise DataError(f"{path} cannot be opened as a video: damaged, or of a codec that OpenCV lacks")
            self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()

    @property
    def length(self) -> int | None:
        """The number of frames that the file's header tells."""
        return self._count if self._count > 0 else None

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield every frame; a video that ends before its header says is bad. See :class:`Source`."""
        cv2 = opencv()
        capture = cv2.VideoCapture(str(self._path))
        count = 0
        try:
            while True:
                there, pixels_BGR = capture.read()
                if not there:
                    break
                pixels = cv2.cvtColor(pixels_BGR, cv2.COLOR_BGR2RGB)
                yield Frame(f"{self._path.stem}_{count:06d}", pixels, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                count += 1
        finally:
            capture.release()
        check_length(str(self._path), count, self._count, on_bad)
