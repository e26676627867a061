"""What a camera driver says of its camera: ``sensor_msgs/CameraInfo`` as a plain record, and the intrinsics in it."""

from __future__ import annotations

from dataclasses import dataclass

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.geometry import Intrinsics

#: Two shapes of an image are one view resized where their ratios of width to height differ by no more than this share.
_SAME_SHAPE = 0.02


@dataclass(frozen=True)
class CameraInfo:
    """The fields of ``sensor_msgs/CameraInfo`` (REP-104); lists row after row.

    ``height`` and ``width`` are those of the full sensor, in whose pixels ``k`` and ``p`` are. ``binning``: (x, y), 0
    and 1 mean none. ``roi``: (x offset, y offset, height, width, do_rectify), height and width 0 for the full sensor.
    ``rectified``, which the message does not say: whether the image beside it is, and ``p`` describes it, not ``k``.
    """

    height: int
    width: int
    k: tuple[float, ...]  # 3 x 3, of the raw image
    p: tuple[float, ...]  # 3 x 4, of the rectified one
    d: tuple[float, ...] = ()
    r: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    distortion_model: str = "plumb_bob"
    binning: tuple[int, int] = (0, 0)
    roi: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False)
    rectified: bool = False

    @classmethod
    def of(cls, camera: Intrinsics) -> CameraInfo:
        """Return the CameraInfo of a pinhole camera without distortion."""
        fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
        k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
        p = (fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0)
        return cls(camera.height, camera.width, k, p)

    @property
    def calibrated(self) -> bool:
        """Whether there are intrinsics in it: drivers of cameras that nobody calibrated send zeros."""
        return self.k[0] != 0

    @property
    def distorted(self) -> bool:
        """Whether straight lines are bent in the image, so that a pinhole holds near the middle alone."""
        return not self.rectified and any(self.d)

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics:
        """Return the pinhole camera of its image of ``size`` (height, width).

        Binning and region of interest are followed, and an image that was resized since. Raises DataError for a
        CameraInfo of zeros, and where the image has another shape: something cropped it and did not say so.
        """
        if not self.calibrated:
            raise DataError("its CameraInfo is all zeros: the camera is not calibrated")
        k, p = self.k, self.p
        fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if self.rectified and p[0] else (k[0], k[4], k[2], k[5])
        left, top, height, width, _ = self.roi
        try:
            # A region without extent is the full sensor.
            view = Intrinsics(fx, fy, cx - left, cy - top, height or self.height, width or self.width)
            across, down = (max(1, factor) for factor in self.binning)
            view = view.scaled((view.height // down, view.width // across))
        except SpecError as error:
            raise DataError(f"its CameraInfo makes no sense: {error}") from None
        if abs(view.width / view.height * size[0] / size[1] - 1) > _SAME_SHAPE:
            raise DataError(
                f"its CameraInfo is of {view.width} x {view.height} pixels (width x height), the image has {size[1]} x "
                f"{size[0]}: something cropped it and left the CameraInfo as it was"
            )
        return view.scaled(size)
