"""Surface normals out of a depth map, where a data set has none of its own.

Shape suffixes: H x W the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

#: Half the side of the window that a plane is fitted to, pixels: 9 x 9.
RADIUS = 4
#: Share of the window, as far as it lies inside the map, that must have a depth.
_LEAST = 0.5
#: A window that no plane fits to this share of its depth (root mean square) lies across an edge.
_MISFIT = 0.01


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and centre in pixels, the middle of the first pixel being (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


def normals_from_depth(
    depth_HW: npt.NDArray[np.float32], camera: Intrinsics, *, radius: int = RADIUS
) -> npt.NDArray[np.float32]:
    """Return unit normals (H, W, 3) toward the camera, in its optical frame; (0, 0, 0) where there is none.

    ``depth_HW`` is along the optical axis, 0 where it is unknown. Inverse depth is affine over the image of a plane,
    ``1 / z = a x + b y + c`` with the normal (a, b, c), and it is what a Kinect measures with even noise: a, b and c
    are its least squares over the window. There is no normal where the pixel has no depth, where more than half of
    the window has none, or where no plane fits.
    """
    height, width = depth_HW.shape
    known = depth_HW > 0
    inverse = np.zeros((height, width))
    np.divide(1.0, depth_HW, out=inverse, where=known)
    x = np.broadcast_to((np.arange(width) - camera.cx) / camera.fx, (height, width))
    y = np.broadcast_to(((np.arange(height) - camera.cy) / camera.fy)[:, None], (height, width))

    count = _box(known.astype(np.float64), radius)
    enough = known & (count >= _LEAST * _box(np.ones_like(inverse), radius))
    count = np.maximum(count, 1)

    def mean(values: Float64) -> Float64:
        return _box(np.where(known, values, 0.0), radius) / count

    mean_x, mean_y, mean_w = mean(x), mean(y), mean(inverse)
    xx, xy, yy = mean(x * x) - mean_x**2, mean(x * y) - mean_x * mean_y, mean(y * y) - mean_y**2
    xw, yw = mean(x * inverse) - mean_x * mean_w, mean(y * inverse) - mean_y * mean_w
    determinant = xx * yy - xy * xy
    # A window whose known pixels lie on a line fits any plane through it.
    enough &= determinant > 1e-3 * xx * yy
    determinant = np.where(enough, determinant, 1.0)
    a, b = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
    misfit = mean(inverse * inverse) - mean_w**2 - a * xw - b * yw
    enough &= misfit <= (_MISFIT * mean_w) ** 2
    # (a, b, c) points away: its product with any point of the plane is 1.
    normal = -np.stack([a, b, mean_w - a * mean_x - b * mean_y], axis=2)
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    return np.where(enough[..., None], normal / np.maximum(length, 1e-12), 0.0).astype(np.float32)


def _box(values: Float64, radius: int) -> Float64:
    """Return the sum over the window of each pixel, what lies outside the map being 0."""
    padded = np.pad(values, ((radius + 1, radius), (radius + 1, radius))).cumsum(axis=0).cumsum(axis=1)
    side = 2 * radius + 1
    return padded[side:, side:] - padded[:-side, side:] - padded[side:, :-side] + padded[:-side, :-side]
