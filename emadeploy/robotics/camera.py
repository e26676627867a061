"""Frames of cameras through OpenCV: V4L2 devices, network cameras, GStreamer pipelines."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.pictures import opencv
from emadeploy.robotics.frame import Frame, OnBad, check_length

#: Milliseconds after which a network camera that does not answer counts as lost.
_TIMEOUT_MS = 5000


class Camera:
    """A camera, or a stream that plays by itself. It is open while :meth:`frames` is being iterated, and only then.

    A stream that knows its number of frames, such as a video on a web server, is not ``live``: it has an end.
    """

    one_size = True

    def __init__(self, text: str, device: int | str, backend: int, settings: tuple[int, ...]) -> None:
        self._text, self._opening = text, (device, backend, settings)
        capture = self._open()
        try:
            count = int(capture.get(opencv().CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        self._count = count if count > 0 else None
        self._given = 0

    @property
    def length(self) -> int | None:
        """The number of frames that a video on a server tells; ``None`` for a camera."""
        return self._count

    @property
    def live(self) -> bool:
        """Whether it plays by itself and has no end."""
        return self._count is None

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield frames, stamped when they come; raises DataError where the camera is lost. See :class:`Source`."""
        cv2 = opencv()
        stem = re.sub(r"[^0-9A-Za-z]+", "_", self._text.partition("@")[2] or self._text).strip("_")[:40]
        capture = self._open()
        before = self._given
        try:
            while capture.grab():
                stamp = time.time()  # before decoding, which takes a while
                there, pixels_BGR = capture.retrieve()
                if not there:
                    break
                self._given += 1  # counts on when it is opened again: names are unique
                yield Frame(f"{stem}_{self._given - 1:06d}", cv2.cvtColor(pixels_BGR, cv2.COLOR_BGR2RGB), stamp)
        finally:
            capture.release()
        count = self._given - before
        if self._count is None or count == 0:
            raise DataError(f"{self} gives no more frames: unplugged, out of reach, or taken by another program")
        check_length(str(self), count, self._count, on_bad)

    def __str__(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self._text)  # without user and password

    def _open(self) -> Any:
        device, backend, settings = self._opening
        cv2 = opencv()
        capture = cv2.VideoCapture(device, backend, settings)
        if not capture.isOpened():
            capture.release()
            raise DataError(f"{self} cannot be opened: {_reason(device, backend)}")
        # Few frames in the driver: what waits there grows old. Where it cannot be set, the stream reads them all.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture


def open_camera(text: str) -> Camera:
    """Return the camera 'camera:0', 'camera:/dev/video2', 'rtsp://...', 'http://...' or 'gst:PIPELINE'.

    Raises SpecError for another text, DataError where it cannot be opened, BackendMissing where OpenCV is missing.
    """
    cv2 = opencv()
    kind, _, rest = text.partition(":")
    if kind == "camera":
        if not re.fullmatch(r"\d+|/\S+", rest):
            raise SpecError(f"source {text!r}: expected a number or a device, such as camera:0 or camera:/dev/video2")
        return Camera(text, int(rest) if rest.isdigit() else rest, cv2.CAP_V4L2, ())
    if kind == "gst":
        return Camera(text, rest, cv2.CAP_GSTREAMER, ())
    settings = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS)
    return Camera(text, text, cv2.CAP_FFMPEG, settings)


def _reason(device: int | str, backend: int) -> str:
    cv2 = opencv()
    if backend == cv2.CAP_GSTREAMER:
        if "GStreamer:                   YES" not in cv2.getBuildInformation():
            return "this OpenCV is built without GStreamer, as those of PyPI are; a Jetson's own has it"
        return "GStreamer refuses the pipeline; try it with gst-launch-1.0, and end it with appsink"
    if backend == cv2.CAP_V4L2:
        present = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
        if not present:
            return "there is no camera on this machine"
        return f"there are {', '.join(f'camera:{number}' for number in present)}, and a program may hold one of them"
    return "nothing answers there, or nothing that FFmpeg can read"
