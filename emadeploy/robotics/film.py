"""The frame and its maps side by side as a film, for people without a viewer: motion JPEG, or mp4.

Motion JPEG needs Pillow or OpenCV, whichever there is, and can be played up to wherever it was cut off. An mp4 needs
OpenCV, is smaller, and plays only when it has been closed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.spec import TaskSpec
from emadeploy.pictures import opencv
from emadeploy.robotics.frame import Frame

MJPEG, MP4 = (".mjpeg", ".mjpg"), (".mp4",)
_QUALITY = 90
#: Frames per second where the stamps do not tell, and the most and least that are believed.
_USUAL_RATE, _RATES = 15.0, (1.0, 120.0)


class Film:
    """Writes frame after frame to ``path``, '.mjpeg', '.mjpg' or '.mp4'.

    Raises DataError where the disk refuses, BackendMissing where there is nothing to encode with.
    """

    def __init__(self, path: Path, tasks: Sequence[TaskSpec]) -> None:
        self._path, self._tasks = path, tasks
        # The suffix stays last: OpenCV chooses the container by it.
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._reel: _Reel = (_Mp4 if path.suffix.lower() in MP4 else _Mjpeg)(self._partial, path)
        self._waiting: tuple[float, UInt8] | None = None
        self._started = False

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Add one frame."""
        picture = side_by_side([frame.pixels, *(colourise(outputs.maps[task.name], task) for task in self._tasks)])
        if self._started:
            self._reel.add(picture)
        elif self._waiting is None:
            self._waiting = frame.stamp, picture  # the rate is known with the next
        else:
            self._start(frame.stamp - self._waiting[0])
            self._reel.add(picture)

    def close(self, *, whole: bool) -> None:
        """End the film and give it its name where it is ``whole``; else it keeps '.partial', and plays up to there."""
        if self._waiting is not None and not self._started:
            self._start(0.0)
        self._reel.close()
        if not self._started:
            self._partial.unlink(missing_ok=True)
        elif whole:
            os.replace(self._partial, self._path)

    def _start(self, seconds: float) -> None:
        assert self._waiting is not None
        self._started = True
        rate = 1 / seconds if seconds > 0 else _USUAL_RATE
        self._reel.start(self._waiting[1], float(np.clip(rate, *_RATES)))
        self._reel.add(self._waiting[1])


def side_by_side(pictures: Sequence[UInt8]) -> UInt8:
    """Return pictures (H, W, 3) of one size in rows of two, extents even; what is left over is black."""
    height, width, _ = pictures[0].shape
    height, width = height + height % 2, width + width % 2  # as video codecs need them
    rows = -(-len(pictures) // 2)
    canvas = np.zeros((rows * height, min(2, len(pictures)) * width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // 2 * height, index % 2 * width
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


class _Reel(Protocol):
    def start(self, picture: UInt8, rate: float) -> None: ...

    def add(self, picture: UInt8) -> None: ...

    def close(self) -> None: ...


class _Mjpeg:
    """JPEG after JPEG, as players and OpenCV read them; the rate is not in the file."""

    def __init__(self, partial: Path, path: Path) -> None:
        self._path, self._encode = path, _jpeg_encoder()
        try:
            self._file = partial.open("wb")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from None

    def start(self, picture: UInt8, rate: float) -> None:
        pass

    def add(self, picture: UInt8) -> None:
        try:
            self._file.write(self._encode(picture))
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path} cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        self._file.close()


class _Mp4:
    """A video of MPEG-4 by OpenCV. It tells of no error while it writes, so that the file is read at the end."""

    def __init__(self, partial: Path, path: Path) -> None:
        self._partial, self._path, self._count = partial, path, 0
        self._cv2 = opencv()
        self._writer: Any = None
        self._size = (0, 0)

    def start(self, picture: UInt8, rate: float) -> None:
        self._size = picture.shape[1], picture.shape[0]
        self._writer = self._cv2.VideoWriter(
            str(self._partial), self._cv2.VideoWriter_fourcc(*"mp4v"), rate, self._size
        )
        if not self._writer.isOpened():
            raise DataError(f"{self._path} cannot be written: no such folder, no space, or OpenCV has no MPEG-4")

    def add(self, picture: UInt8) -> None:
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = self._cv2.resize(picture, self._size)
        self._writer.write(picture[:, :, ::-1])
        self._count += 1

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        capture = self._cv2.VideoCapture(str(self._partial))
        written = int(capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if written != self._count:
            raise DataError(
                f"{self._path} cannot be written: {self._partial} has {max(written, 0)} of {self._count} frames; is "
                "the disk full?"
            )


def _jpeg_encoder() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        try:
            import cv2
        except ModuleNotFoundError:
            raise BackendMissing.of("writing motion JPEG", "pillow", "robotics") from None
        return lambda picture: cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]

    def encode(picture: UInt8) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()

    return encode
