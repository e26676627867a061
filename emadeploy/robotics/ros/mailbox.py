"""Messages of a subscription as a source: the newest image waits, older ones are dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from emadeploy.contract.errors import SpecError
from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Frame, OnBad
from emadeploy.robotics.ros.images import read_image
from emadeploy.robotics.ros.types import read_header


class Mailbox:
    """A source of the images that are put in, until it is closed; images are unpacked when they are taken out.

    ``now`` tells the time in nanoseconds at which a message comes. It may be iterated once.
    """

    one_size = True
    live = False  # it ends when it is closed, and is not opened again
    length = None

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._waiting: tuple[Any, int] | None = None
        self._closed = False
        self._given = 0
        #: The camera of the images that come from now on.
        self.camera: CameraInfo | None = None
        self.received = 0
        self.dropped = 0

    def put(self, message: Any) -> None:
        """Take an Image or a CompressedImage; returns at once."""
        with self._changed:
            self.received += 1
            self.dropped += self._waiting is not None
            self._waiting = message, self._now()
            self._changed.notify()

    def close(self) -> None:
        """End the source."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Return an iterator over the newest image, and the next, and so on, which waits for them.

        Raises DataError for a message whose data do not fit, and goes on after it; SpecError for an encoding of no
        camera, which is the end.
        """
        # No generator: that would end with the first error. What is bad is raised, for on_bad would be heard only when
        # an image comes that is not.
        return iter(self._next, None)

    def __str__(self) -> str:
        return "the subscription"

    def _next(self) -> Frame | None:
        taken = self._take()
        if taken is None:
            return None
        message, received = taken
        header = read_header(message, received)
        try:
            pixels = read_image(message)
        except SpecError:
            self.close()  # every image of the topic will be like this
            raise
        self._given += 1
        return Frame(f"image_{self._given:06d}", pixels, header.stamp_ns / 1e9, header, self.camera)

    def _take(self) -> tuple[Any, int] | None:
        with self._changed:
            while self._waiting is None and not self._closed:
                self._changed.wait()
            taken, self._waiting = self._waiting, None
            return None if self._closed else taken
