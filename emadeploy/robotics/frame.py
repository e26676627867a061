"""The record of a frame, whatever it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emadeploy.contract.errors import DataError
from emadeploy.contract.preprocess import UInt8

#: What becomes of a picture or a piece of video that cannot be read, while the rest goes on.
OnBad = Callable[[DataError], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: ``pixels`` uint8 (H, W, 3) RGB.

    ``name`` is unique in its source and fit for a file's name. ``stamp`` is in seconds: the time of the last change
    of a picture's file, the position in a video, the time of day at which a camera's frame came.
    """

    name: str
    pixels: UInt8
    stamp: float


def report(error: DataError, on_bad: OnBad | None) -> None:
    """Hand ``error`` to ``on_bad``, or raise it."""
    if on_bad is None:
        raise error
    on_bad(error)


def check_length(video: str, count: int, told: int, on_bad: OnBad | None) -> None:
    """Report a ``video`` that ended after ``count`` frames where its header ``told`` of clearly more."""
    # Some containers derive the count from duration and rate: one or two frames off is no damage.
    if count == 0 or count < told - max(2, told // 100):
        report(DataError(f"{video} ends after {count} frames, its header says {told}: truncated"), on_bad)
