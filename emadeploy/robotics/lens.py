"""Which intrinsics a frame has: those given by the user, else those that were recorded beside it."""

from __future__ import annotations

import re
from collections.abc import Callable

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.geometry import Intrinsics
from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Frame

_NUMBER = r"\s*([-+0-9.eE]+)\s*"
_MATRIX = re.compile(",".join([_NUMBER] * 4) + r"(?:@(\d+)x(\d+))?")


class Lens:
    """Tells the intrinsics of frame after frame; ``say`` is told once why there are none, or what is wrong with them.

    ``given``: 'FX,FY,CX,CY' in pixels of the frames, or of images of 'FX,FY,CX,CY@WIDTHxHEIGHT', or 'fov:DEGREES', the
    horizontal field of view. It goes before what is recorded. Raises SpecError for other texts.
    """

    def __init__(self, given: str | None = None, say: Callable[[str], object] = lambda message: None) -> None:
        self._given = None if given is None else _parsed(given)
        self._say = say
        self._said: set[str] = set()
        self._known: tuple[CameraInfo | None, tuple[int, int], Intrinsics | None] | None = None

    def of(self, frame: Frame) -> Intrinsics | None:
        """Return the camera that took the frame, in its pixels; ``None`` where it is not known."""
        height, width = frame.pixels.shape[:2]
        known = self._known
        if known is None or known[0] != frame.camera or known[1] != (height, width):
            known = self._known = (frame.camera, (height, width), self._find(frame.camera, (height, width)))
        return known[2]

    def info(self, frame: Frame) -> CameraInfo | None:
        """Return the CameraInfo of the frame: the one recorded, else one made of the intrinsics given."""
        if self._given is None and frame.camera is not None:
            return frame.camera
        intrinsics = self.of(frame)
        return None if intrinsics is None else CameraInfo.of(intrinsics)

    def _find(self, camera: CameraInfo | None, size: tuple[int, int]) -> Intrinsics | None:
        if camera is None and self._given is None:
            self._once("no points: no intrinsics are recorded; give them with --intrinsics")
            return None
        try:
            if self._given is not None:
                return self._given(size)
            assert camera is not None
            if camera.distorted:
                self._once("the images are not rectified: points near their borders are off by the lens's distortion")
            return camera.intrinsics(size)
        except DataError as error:
            self._once(f"no points: {error}; give the intrinsics with --intrinsics")
            return None

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(message)


def _parsed(text: str) -> Callable[[tuple[int, int]], Intrinsics]:
    kind, _, degrees = text.partition(":")
    try:
        if kind == "fov":
            angle = float(degrees)
            Intrinsics.from_fov((1, 1), angle)
            return lambda size: Intrinsics.from_fov(size, angle)
        if match := _MATRIX.fullmatch(text):
            fx, fy, cx, cy = map(float, match.groups()[:4])
            Intrinsics(fx, fy, cx, cy, 1, 1)
            if match[5] is None:
                return lambda size: Intrinsics(fx, fy, cx, cy, *size)
            camera = Intrinsics(fx, fy, cx, cy, int(match[6]), int(match[5]))
            # As if a CameraInfo had said it: resized frames are followed, cropped ones refused.
            return CameraInfo.of(camera).intrinsics
    except SpecError as error:
        raise SpecError(f"--intrinsics {text!r}: {error}") from None
    except ValueError:
        pass
    raise SpecError(f"--intrinsics {text!r}: expected FX,FY,CX,CY in pixels, FX,FY,CX,CY@WIDTHxHEIGHT, or fov:DEGREES")
