"""What rooms are filled with: pieces made of parts.

A piece has its own frame: origin in the middle of its footprint on the ground, x to its right, +y the way it faces, z
up. A piece for the wall has its origin on the wall, y out of the wall.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from emadeploy.data.rooms.materials import Material


@dataclass(frozen=True)
class Part:
    """Triangles of one class and one material.

    triangles: (F, 3, 3) metres, in the frame of the piece.
    label:     class index.
    items:     (F,) int, tells like things in one part apart (the books of a row), or None.
    origin:    where the texture has its origin, in the frame of the piece.
    shadows:   False for what light passes through: panes and lampshades.
    """

    triangles: np.ndarray
    label: int
    material: Material
    items: np.ndarray | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shadows: bool = True


@dataclass(frozen=True)
class Top:
    """A level rectangle on which smaller things can stand, with the room above it; metres, frame of the piece."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: float
    headroom: float = 0.6


@dataclass(frozen=True)
class Piece:
    """A thing in the room; `light` is where it shines from, in its own frame, if it does."""

    name: str
    parts: tuple[Part, ...]
    tops: tuple[Top, ...] = ()
    light: tuple[float, float, float] | None = None

    @cached_property
    def bounds(self) -> np.ndarray:
        """(2, 3): the lowest and the highest corner of the piece, in its frame."""
        corners = np.concatenate([part.triangles.reshape(-1, 3) for part in self.parts])
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    @property
    def size(self) -> np.ndarray:
        """(3,) width, depth, height in metres."""
        return self.bounds[1] - self.bounds[0]


@dataclass(frozen=True)
class Placed:
    """A piece in the room: turned by `yaw` radians around z, then moved; `instance` numbers the things of a room."""

    piece: Piece
    position: tuple[float, float, float]
    yaw: float = 0.0
    instance: int = 0

    def to_room(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) from the frame of the piece to that of the room."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return points @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) + np.asarray(self.position)

    @cached_property
    def box(self) -> np.ndarray:
        """(2, 3): the lowest and highest corner of an upright box around it in the room."""
        low, high = self.piece.bounds
        middle, half = self.to_room((low + high) / 2), (high - low) / 2
        cos, sin = abs(np.cos(self.yaw)), abs(np.sin(self.yaw))
        reach = np.array([cos * half[0] + sin * half[1], sin * half[0] + cos * half[1], half[2]])
        return np.stack([middle - reach, middle + reach])
