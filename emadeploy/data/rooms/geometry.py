"""Primitive shapes as triangle soups: float64 arrays (F, 3, 3), triangle x corner x (x, y, z), in metres.

z points up. Corners may run either way round: the renderer turns every normal toward the camera.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_QUADS = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
_UNIT_BOX = np.array([[_CORNERS[q[i]] for i in ids] for q in _QUADS for ids in ((0, 1, 2), (0, 2, 3))])

BOX_TRIANGLES = len(_UNIT_BOX)


def boxes(centres: ArrayLike, sizes: ArrayLike) -> np.ndarray:
    """Axis-aligned boxes, `centres` and `sizes` (N, 3): (12 N, 3, 3), the triangles of one box next to each other."""
    centres = np.asarray(centres, dtype=np.float64)
    sizes = np.asarray(sizes, dtype=np.float64)
    return (_UNIT_BOX[None] * sizes[:, None, None] + centres[:, None, None]).reshape(-1, 3, 3)


def box(low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """The axis-aligned box between two opposite corners: (12, 3, 3)."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return _UNIT_BOX * (high - low) + (low + high) / 2


def quad(corner: Sequence[float], edge_u: Sequence[float], edge_v: Sequence[float]) -> np.ndarray:
    """A parallelogram from one corner and its two edges: (2, 3, 3)."""
    origin, u, v = (np.asarray(a, dtype=np.float64) for a in (corner, edge_u, edge_v))
    return np.array([[origin, origin + u, origin + u + v], [origin, origin + u + v, origin + v]])


def _surface(rings: np.ndarray) -> np.ndarray:
    """Joins R rings of K points, (R, K, 3), into a closed band: (2 (R - 1) K, 3, 3), flat triangles removed."""
    a, b = rings[:-1], rings[1:]
    a_next, b_next = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
    triangles = np.stack([np.stack([a, a_next, b_next], axis=2), np.stack([a, b_next, b], axis=2)]).reshape(-1, 3, 3)
    # At the poles of a shape corners fall together.
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    flat = (a == b).all(axis=1) | (b == c).all(axis=1) | (a == c).all(axis=1)
    return triangles[~flat]


def lathe(profile: Sequence[tuple[float, float]], segments: int = 20) -> np.ndarray:
    """A profile of (radius, height) points turned around the z axis: vases, lamps, bottles, bowls."""
    points = np.asarray(profile, dtype=np.float64)
    angle = np.arange(segments) * (2 * np.pi / segments)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    rings = points[:, None, :1] * circle[None]
    rings[..., 2] = points[:, 1:]
    return _surface(rings)


def cylinder(radius: float, low: float, high: float, segments: int = 16) -> np.ndarray:
    """A closed upright cylinder between two heights."""
    return lathe([(0, low), (radius, low), (radius, high), (0, high)], segments)


def ball(size: Sequence[float], roundness: float = 1.0, segments: int = 20, rings: int = 12) -> np.ndarray:
    """A superellipsoid around the origin with extents `size` (3,).

    `roundness` 1 is an ellipsoid; toward 0 it becomes a box with soft edges, which is what cushions and pillows need.
    """

    def signed_power(value: np.ndarray) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** roundness

    latitude = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    angle = (np.arange(segments) + 0.5) * (2 * np.pi / segments)
    around, up = signed_power(np.cos(latitude)), signed_power(np.sin(latitude))
    # cos(pi / 2) is not exactly 0, and a small roundness would blow the rest up into a hole at each pole.
    around[[0, -1]] = 0
    points = np.empty((rings + 1, segments, 3))
    points[..., 0] = around[:, None] * signed_power(np.cos(angle)) / 2 * size[0]
    points[..., 1] = around[:, None] * signed_power(np.sin(angle)) / 2 * size[1]
    points[..., 2] = up[:, None] / 2 * size[2]
    return _surface(points)


def beam(start: Sequence[float], end: Sequence[float], thickness: float) -> np.ndarray:
    """A square bar between two points, for slanted legs and stretchers: (12, 3, 3)."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    along = b - a
    length = np.linalg.norm(along)
    axis = along / length
    helper = np.array([1.0, 0.0, 0.0]) if abs(axis[0]) < 0.7 else np.array([0.0, 1.0, 0.0])
    side = np.cross(axis, helper)
    side /= np.linalg.norm(side)
    frame = np.stack([side * thickness, np.cross(axis, side) * thickness, along])
    return _UNIT_BOX @ frame + (a + b) / 2


def moved(triangles: np.ndarray, offset: Sequence[float]) -> np.ndarray:
    return triangles + np.asarray(offset, dtype=np.float64)


def turned(triangles: np.ndarray, yaw: float) -> np.ndarray:
    """Rotated around the z axis by `yaw` radians, x toward y."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return triangles @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def tilted(triangles: np.ndarray, pitch: float) -> np.ndarray:
    """Rotated around the x axis by `pitch` radians, y toward z."""
    cos, sin = np.cos(pitch), np.sin(pitch)
    return triangles @ np.array([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]])


def joined(*shapes: np.ndarray) -> np.ndarray:
    return np.concatenate(shapes)
