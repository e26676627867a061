"""The record of a frame, whatever it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emadeploy.contract.errors import DataError
from emadeploy.contract.preprocess import UInt8
from emadeploy.robotics.camera_info import CameraInfo

#: What becomes of a picture or a piece of video that cannot be read, while the rest goes on.
OnBad = Callable[[DataError], None]


class Lost(DataError):  # noqa: N818 - the name says what is the matter
    """A part of a source that cannot be read, and how many ``frames`` went with it."""

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames


@dataclass(frozen=True)
class Header:
    """What a recorded message says of itself: nanoseconds of capture and of recording, and its coordinate frame.

    Nanoseconds since 1970 do not fit a float.
    """

    stamp_ns: int
    frame_id: str
    received_ns: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: ``pixels`` uint8 (H, W, 3) RGB.

    ``name`` is unique in its source and fit for a file's name. ``stamp`` is in seconds: the time of the last change
    of a picture's file, the position in a video, the time of day at which a camera's frame came, what a recorded
    message says. ``header`` is that of a recorded message, ``camera`` the CameraInfo that was recorded beside it.
    """

    name: str
    pixels: UInt8
    stamp: float
    header: Header | None = None
    camera: CameraInfo | None = None


def report(error: DataError, on_bad: OnBad | None) -> None:
    """Hand ``error`` to ``on_bad``, or raise it."""
    if on_bad is None:
        raise error
    on_bad(error)


def check_length(video: str, count: int, told: int, on_bad: OnBad | None) -> None:
    """Report a ``video`` that ended after ``count`` frames where its header ``told`` of clearly more."""
    # Some containers derive the count from duration and rate: one or two frames off is no damage.
    if count == 0 or count < told - max(2, told // 100):
        error = Lost(f"{video} ends after {count} frames, its header says {told}: truncated", max(1, told - count))
        report(error, on_bad)
