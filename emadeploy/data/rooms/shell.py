"""The empty room: floor, ceiling and four walls with their windows.

The room's frame has its origin in the middle of the floor, z up. Wall 0 is at -y, 1 at +x, 2 at +y, 3 at -x; each is a
piece of its own, seen from inside: x to the right along it, y out of it into the room.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from emadeploy.data.rooms import fixtures, materials
from emadeploy.data.rooms import geometry as g
from emadeploy.data.rooms.classes import CEILING, FLOOR, WALL
from emadeploy.data.rooms.fixtures import Opening
from emadeploy.data.rooms.piece import Part, Piece, Placed

# Instances of the shell; everything that is put into the room counts up from FIRST_FREE.
WALLS, FLOORS, CEILINGS, FIRST_FREE = 0, 1, 2, 3


@dataclass(frozen=True)
class Shell:
    """Extents in metres, the windows of each wall, and brightness outside (0.05 at night to about 4 at noon)."""

    width: float
    depth: float
    height: float
    openings: tuple[tuple[Opening, ...], ...]
    daylight: float

    def wall_length(self, wall: int) -> float:
        return self.width if wall % 2 == 0 else self.depth

    def wall_yaw(self, wall: int) -> float:
        """By how much a piece is turned so that it stands with its back to this wall."""
        return (0.0, np.pi / 2, np.pi, -np.pi / 2)[wall]

    def on_wall(self, wall: int, u: float, out: float, z: float) -> tuple[float, float, float]:
        """A point `u` metres right of a wall's middle, `out` metres from it, `z` above the floor, in the room."""
        half_w, half_d = self.width / 2, self.depth / 2
        x, y = ((u, out - half_d), (half_w - out, u), (-u, half_d - out), (out - half_w, -u))[wall]
        return (x, y, z)


def draw_shell(rng: np.random.Generator) -> Shell:
    width, depth, height = rng.uniform(3.0, 6.0), rng.uniform(3.0, 5.5), rng.uniform(2.35, 3.0)
    openings: list[tuple[Opening, ...]] = []
    counts = rng.permutation([1, int(rng.integers(0, 3)), int(rng.integers(0, 2)), 0])
    for wall, count in enumerate(counts):
        length = width if wall % 2 == 0 else depth
        openings.append(_openings(rng, length, height, int(count)))
    daylight = 0.05 if rng.random() < 0.15 else rng.uniform(0.7, 4.0)
    return Shell(width, depth, height, tuple(openings), daylight)


def _openings(rng: np.random.Generator, length: float, height: float, count: int) -> tuple[Opening, ...]:
    """Up to `count` windows side by side in one wall, all of one height."""
    if count == 0:
        return ()
    low = rng.uniform(0.05, 0.3) if rng.random() < 0.15 else rng.uniform(0.7, 1.1)
    high = min(height - 0.15, rng.uniform(1.9, 2.3))
    each = length / count
    result = []
    for k in range(count):
        wide = rng.uniform(0.7, min(2.2, each - 0.6))
        middle = -length / 2 + (k + 0.5) * each + rng.uniform(-0.5, 0.5) * (each - wide - 0.5)
        result.append(Opening(middle - wide / 2, middle + wide / 2, low, high, rng.uniform(0.06, 0.2)))
    return tuple(result)


def _wall(length: float, height: float, openings: tuple[Opening, ...]) -> np.ndarray:
    """A wall with holes, and the sides of the holes; its origin on the floor under its middle."""
    cuts_u = sorted({-length / 2, length / 2, *(u for o in openings for u in (o.u0, o.u1))})
    cuts_z = sorted({0.0, height, *(z for o in openings for z in (o.z0, o.z1))})
    shapes = []
    for u0, u1 in pairwise(cuts_u):
        for z0, z1 in pairwise(cuts_z):
            u, z = (u0 + u1) / 2, (z0 + z1) / 2
            if not any(o.u0 < u < o.u1 and o.z0 < z < o.z1 for o in openings):
                shapes.append(g.quad((u0, 0, z0), (u1 - u0, 0, 0), (0, 0, z1 - z0)))
    for o in openings:
        shapes += [g.quad((o.u0, 0, z), (o.width, 0, 0), (0, -o.reveal, 0)) for z in (o.z0, o.z1)]
        shapes += [g.quad((u, 0, o.z0), (0, 0, o.height), (0, -o.reveal, 0)) for u in (o.u0, o.u1)]
    return g.joined(*shapes)


def build_shell(rng: np.random.Generator, shell: Shell) -> list[Placed]:
    """Walls, floor, ceiling, skirting and windows, each with its material."""
    w, d, h = shell.width / 2, shell.depth / 2, shell.height
    floor = g.quad((-w, -d, 0), (2 * w, 0, 0), (0, 2 * d, 0))
    ceiling = g.quad((-w, -d, h), (2 * w, 0, 0), (0, 2 * d, 0))
    placed = [
        Placed(Piece("floor", (Part(floor, FLOOR, materials.floor_finish(rng)),)), (0, 0, 0), 0.0, FLOORS),
        Placed(Piece("ceiling", (Part(ceiling, CEILING, materials.ceiling_finish(rng)),)), (0, 0, 0), 0.0, CEILINGS),
    ]
    finish, accent = materials.wall_finish(rng), materials.wall_finish(rng)
    accent_wall = int(rng.integers(4)) if rng.random() < 0.35 else -1
    skirting = materials.hard(rng) if rng.random() < 0.7 else None
    skirting_height = rng.uniform(0.05, 0.12)
    view, frame = materials.outdoors(rng, shell.daylight), materials.painted(rng, "pale", "pale", "grey", "wood")
    instance = FIRST_FREE
    for wall, openings in enumerate(shell.openings):
        length, yaw = shell.wall_length(wall), shell.wall_yaw(wall)
        parts = [Part(_wall(length, h, openings), WALL, accent if wall == accent_wall else finish)]
        if skirting is not None and all(o.z0 > skirting_height for o in openings):
            parts.append(Part(g.box((-length / 2, 0, 0), (length / 2, 0.014, skirting_height)), WALL, skirting))
        placed.append(Placed(Piece("wall", tuple(parts)), shell.on_wall(wall, 0, 0, 0), yaw, WALLS))
        for opening in openings:
            middle = shell.on_wall(wall, (opening.u0 + opening.u1) / 2, 0, (opening.z0 + opening.z1) / 2)
            placed.append(Placed(fixtures.window(rng, opening, view, frame), middle, yaw, instance))
            instance += 1
    return placed
