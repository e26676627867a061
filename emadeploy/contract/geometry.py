"""Depth as geometry: the pinhole camera, points in space, and the normals that a depth map implies.

Optical frame (REP-103): x right, y down, z forward. Pixel (column, row) has its centre at integer coordinates, as in
OpenCV. H, W: height and width of a map; N: number of points.

Everything about planes is done on inverse depth ``w = 1 / z``: a plane ``n . P = c`` seen through the pinhole is affine
in it, ``w = (n_x x + n_y y + n_z) / c`` with ``x = (column - cx) / fx``, so that differences over any number of pixels
are exact on planes, and second differences are zero there and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import FrameError, SpecError
from emadeploy.contract.plain import require, spec_path
from emadeploy.contract.preprocess import Float32, UInt8

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, for images of ``height`` x ``width`` pixels: focal lengths and principal
    point in pixels.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int

    def __post_init__(self) -> None:
        with spec_path("intrinsics"):
            for name in ("fx", "fy", "height", "width"):
                value = getattr(self, name)
                require(math.isfinite(value) and value > 0, f"{name} {value} is not positive")
            for name in ("cx", "cy"):
                require(math.isfinite(getattr(self, name)), f"{name} {getattr(self, name)} is not finite")

    @classmethod
    def from_fov(cls, size: tuple[int, int], degrees: float) -> Intrinsics:
        """Return a camera of ``size`` (height, width) whose horizontal field of view has ``degrees``: square pixels,
        looking at the middle. Raises SpecError unless it is between 0 and 180.
        """
        if not 0 < degrees < 180:
            raise SpecError(f"a field of view of {degrees} degrees; expected more than 0 and less than 180")
        height, width = size
        focal = width / (2 * math.tan(math.radians(degrees) / 2))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, height, width)

    @classmethod
    def from_matrix(cls, matrix_33: npt.ArrayLike, size: tuple[int, int]) -> Intrinsics:
        """Return the camera of a 3 x 3 matrix, as OpenCV and ROS (``CameraInfo.k``, also flat) have it."""
        values = np.asarray(matrix_33, np.float64).ravel()
        if values.size != 9:
            raise SpecError(f"intrinsics: a matrix of {values.size} numbers; expected 3 x 3")
        return cls(values[0], values[4], values[2], values[5], *size)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.height, self.width

    def scaled(self, size: tuple[int, int]) -> Intrinsics:
        """Return the camera for the same view resampled to ``size`` (height, width)."""
        if size == self.size:
            return self
        down, across = size[0] / self.height, size[1] / self.width
        # Half a pixel lies between the corner of an image, which stays, and the centre of its first pixel.
        cx, cy = (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5
        return Intrinsics(self.fx * across, self.fy * down, cx, cy, *size)

    def cropped(self, multiple: int) -> Intrinsics:
        """Return the camera of an image without its last rows and columns: both extents are multiples then."""
        return replace(self, height=self.height // multiple * multiple, width=self.width // multiple * multiple)

    def slopes(self) -> tuple[Float32, Float32]:
        """Return x / z of every column (W,) and y / z of every row (H, 1)."""
        x_W = (np.arange(self.width) - self.cx) / self.fx
        y_H1 = (np.arange(self.height)[:, None] - self.cy) / self.fy
        return x_W.astype(np.float32), y_H1.astype(np.float32)


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the optical frame, in the unit of the depth, row after row of the image.

    ``rows`` and ``columns`` (N,) say which pixels they are.
    """

    points: Float32  # (N, 3)
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    colours: UInt8 | None = None  # (N, 3) RGB
    labels: npt.NDArray[Any] | None = None  # (N,)
    normals: Float32 | None = None  # (N, 3)


def valid_depth(depth_HW: Float32) -> _Mask:
    """Return where there is a depth: finite and above 0."""
    valid: _Mask = np.isfinite(depth_HW) & (depth_HW > 0)
    return valid


def back_project(depth_HW: Float32, intrinsics: Intrinsics) -> Float32:
    """Return the point (H, W, 3) of every pixel, float32 in the unit of the depth; NaN where there is no depth.

    ``intrinsics`` of another size are scaled to that of the map. Raises FrameError for what is no map.
    """
    depth_HW, intrinsics = _checked(depth_HW, intrinsics)
    z_HW = np.where(valid_depth(depth_HW), depth_HW, np.float32(np.nan))
    x_W, y_H1 = intrinsics.slopes()
    return np.stack([x_W * z_HW, y_H1 * z_HW, z_HW], axis=2)


def point_cloud(
    depth_HW: Float32,
    intrinsics: Intrinsics,
    *,
    frame: UInt8 | None = None,
    labels: npt.NDArray[Any] | None = None,
    normals: Float32 | None = None,
    step: int = 1,
    farthest: float | None = None,
) -> PointCloud:
    """Return the points that have a depth, of every ``step``-th pixel both ways, none farther away than ``farthest``.

    ``frame`` (H, W, 3) gives them colours, ``labels`` (H, W) and ``normals`` (H, W, 3) theirs. ``intrinsics`` of
    another size are scaled. Raises FrameError where a map has another height and width than the depth.
    """
    depth_HW, intrinsics = _checked(depth_HW, intrinsics)
    if step < 1:
        raise SpecError(f"step {step} is not positive")
    for name, other in (("frame", frame), ("labels", labels), ("normals", normals)):
        if other is not None and other.shape[:2] != depth_HW.shape:
            raise FrameError(f"{name} of shape {other.shape} with depth of shape {depth_HW.shape}; expected one size")
    chosen_HW = np.zeros(depth_HW.shape, bool)
    chosen_HW[::step, ::step] = valid_depth(depth_HW[::step, ::step])
    if farthest is not None:
        chosen_HW &= depth_HW <= farthest
    rows, columns = np.nonzero(chosen_HW)
    z_N = depth_HW[rows, columns]
    x_W, y_H1 = intrinsics.slopes()
    return PointCloud(
        np.stack([x_W[columns] * z_N, y_H1[rows, 0] * z_N, z_N], axis=1),
        rows,
        columns,
        None if frame is None else frame[rows, columns],
        None if labels is None else labels[rows, columns],
        None if normals is None else normals[rows, columns],
    )


def normals_from_depth(depth_HW: Float32, intrinsics: Intrinsics, *, reach: int = 1) -> Float32:
    """Return the normals (H, W, 3) of the surfaces in a depth map: unit, toward the camera, 0 where there is none.

    Differences are taken over ``reach`` pixels, along each axis on whichever side the surface bends least, so that the
    pixels beside a jump in depth get the normal of their own surface. Exact on planes. ``intrinsics`` of another size
    are scaled; the unit of the depth does not matter. Raises FrameError for what is no map.
    """
    depth_HW, intrinsics = _checked(depth_HW, intrinsics)
    w_HW = inverse(depth_HW)
    x_W, y_H1 = intrinsics.slopes()
    right_HW = np.float32(intrinsics.fx) * _slope(w_HW, reach, axis=1)
    down_HW = np.float32(intrinsics.fy) * _slope(w_HW, reach, axis=0)
    # Away from the camera is n with n . P = c > 0; the other way round is toward it.
    normals_HWC = np.stack([-right_HW, -down_HW, x_W * right_HW + y_H1 * down_HW - w_HW], axis=2)
    length_HW = np.sqrt(np.einsum("hwc,hwc->hw", normals_HWC, normals_HWC))
    known_HW = np.isfinite(length_HW) & (length_HW > 0)
    normals_HWC /= np.where(known_HW, length_HW, 1)[:, :, None]
    normals_HWC[~known_HW] = 0
    return normals_HWC


def bends(depth_HW: Float32, *, reach: int = 1) -> Float32:
    """Return how far the surface leaves its plane at each pixel (H, W), relative to its depth, over ``reach`` pixels.

    0 on planes, large at creases and jumps; NaN where no depth is around.
    """
    w_HW = inverse(depth_HW)
    bend_HW: Float32 = np.abs(_second(w_HW, reach, axis=0))
    np.fmax(bend_HW, np.abs(_second(w_HW, reach, axis=1)), out=bend_HW)
    bend_HW /= w_HW
    return bend_HW


def inverse(depth_HW: Float32) -> Float32:
    """Return 1 / depth, NaN where there is none."""
    valid_HW = valid_depth(depth_HW)
    w_HW = np.full(depth_HW.shape, np.nan, np.float32)
    np.divide(np.float32(1), depth_HW, out=w_HW, where=valid_HW)
    return w_HW


def _checked(depth_HW: Float32, intrinsics: Intrinsics) -> tuple[Float32, Intrinsics]:
    if depth_HW.ndim != 2 or depth_HW.dtype.kind != "f" or 0 in depth_HW.shape:
        raise FrameError(f"depth of shape {depth_HW.shape} and type {depth_HW.dtype}; expected floats (height, width)")
    height, width = depth_HW.shape
    return depth_HW.astype(np.float32, copy=False), intrinsics.scaled((height, width))


def _slope(w_HW: Float32, reach: int, axis: int) -> Float32:
    """Return the first derivative of ``w`` along ``axis``: before, around or after each pixel, where it bends least."""
    before, around, after = (shifted(w_HW, offset, axis) for offset in (-reach, 0, reach))
    bend_HW = np.abs(_second(w_HW, reach, axis))
    bend_SHW = np.stack([shifted(bend_HW, -reach, axis), bend_HW, shifted(bend_HW, reach, axis)])
    # One step alone, at the border or between two jumps, is better than nothing.
    slope_SHW = np.stack([around - before, (after - before) / 2, after - around]) / np.float32(reach)
    worst = np.float32(np.finfo(np.float32).max)
    bend_SHW = np.where(np.isfinite(slope_SHW), np.where(np.isfinite(bend_SHW), bend_SHW, worst), np.inf)
    best_HW = np.argmin(bend_SHW, axis=0)
    slope_HW: Float32 = np.take_along_axis(slope_SHW, best_HW[None], axis=0)[0]
    return slope_HW


def _second(w_HW: Float32, reach: int, axis: int) -> Float32:
    second_HW: Float32 = shifted(w_HW, -reach, axis) - 2 * w_HW + shifted(w_HW, reach, axis)
    return second_HW


def shifted(map_HW: Float32, offset: int, axis: int) -> Float32:
    """Return the map whose pixel i is pixel i + ``offset`` along ``axis`` of this one; NaN beyond the border."""
    moved_HW = np.full_like(map_HW, np.nan)
    length = map_HW.shape[axis]
    if abs(offset) >= length:
        return moved_HW
    to = slice(max(0, -offset), length - max(0, offset))
    source = slice(max(0, offset), length - max(0, -offset))
    if axis == 0:
        moved_HW[to] = map_HW[source]
    else:
        moved_HW[:, to] = map_HW[:, source]
    return moved_HW
