"""Where things stand in a room.

Pieces are tried at random places and kept where their upright boxes meet nothing else; what does not fit after some
tries is left out. All randomness comes from the generator given.
"""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms.piece import Piece, Placed
from emadeploy.data.rooms.shell import FIRST_FREE, Shell, build_shell

MIN_OBJECTS, MAX_OBJECTS = 5, 20


@dataclass(frozen=True)
class Room:
    """A furnished room. `objects` counts its things: everything but the shell, windows, curtains, doors, rugs and
    ceiling lamps."""

    shell: Shell
    placed: tuple[Placed, ...]
    objects: int


class Furnisher:
    """Collects pieces; the methods that place one return it, or None where it does not fit."""

    def __init__(self, rng: np.random.Generator, shell: Shell) -> None:
        self.rng = rng
        self.shell = shell
        self.placed = build_shell(rng, shell)
        self.things: list[Placed] = []
        self.target = int(rng.integers(MIN_OBJECTS + 5, MAX_OBJECTS + 1))
        self._instance = FIRST_FREE + sum(len(openings) for openings in shell.openings)
        # Which box each instance keeps for itself; an infinite one meets nothing.
        self._taken = np.full((128, 2, 3), np.inf)
        windows = [(wall, o) for wall, openings in enumerate(shell.openings) for o in openings]
        for k, (wall, o) in enumerate(windows):
            self._taken[FIRST_FREE + k] = self.zone(wall, o.u0, o.u1, 0.25, o.z0, o.z1)

    def zone(self, wall: int, u0: float, u1: float, out: float, z0: float, z1: float) -> np.ndarray:
        """The box in front of a stretch of wall."""
        corners = np.array([self.shell.on_wall(wall, u0, 0.0, z0), self.shell.on_wall(wall, u1, out, z1)])
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def add(self, placed: Placed, *, thing: bool = True, zone: np.ndarray | None = None) -> Placed:
        placed = Placed(placed.piece, placed.position, placed.yaw, self._instance)
        self._instance += 1
        self.placed.append(placed)
        self._taken[placed.instance] = placed.box if zone is None else zone
        if thing:
            self.things.append(placed)
        return placed

    @property
    def full(self) -> bool:
        return len(self.things) >= self.target

    def fits(self, candidate: Placed, margin: float = 0.02, ignore: int = -1) -> bool:
        if len(self.things) >= MAX_OBJECTS:
            return False
        low, high = candidate.box
        half = np.array([self.shell.width / 2, self.shell.depth / 2])
        if (low[:2] < -half - 1e-6).any() or (high[:2] > half + 1e-6).any() or high[2] > self.shell.height:
            return False
        taken = self._taken
        meets = ((taken[:, 1] > low - margin) & (taken[:, 0] < high + margin)).all(axis=1)
        if ignore >= 0:
            meets[ignore] = False
        return not meets.any()

    def against_wall(self, piece: Piece, tries: int = 25, wall: int | None = None) -> Placed | None:
        """Back to a wall, anywhere along it."""
        width = float(piece.size[0])
        for _ in range(tries):
            side = int(self.rng.integers(4)) if wall is None else wall
            room = self.shell.wall_length(side) - width
            if room < 0:
                continue
            u = self.rng.uniform(-room / 2, room / 2)
            gap = 0.015 + self.rng.uniform(0, 0.05)
            position = self.shell.on_wall(side, u, gap - float(piece.bounds[0, 1]), 0.0)
            candidate = Placed(piece, position, self.shell.wall_yaw(side))
            if self.fits(candidate):
                return self.add(candidate)
        return None

    def free_standing(
        self, piece: Piece, tries: int = 25, spread: float = 1.0, straight: bool = False
    ) -> Placed | None:
        """Somewhere on the floor; `spread` below 1 keeps to the middle of the room."""
        for _ in range(tries):
            x = self.rng.uniform(-0.5, 0.5) * self.shell.width * spread
            y = self.rng.uniform(-0.5, 0.5) * self.shell.depth * spread
            yaw = int(self.rng.integers(4)) * np.pi / 2 if straight else self.rng.uniform(-np.pi, np.pi)
            candidate = Placed(piece, (x, y, 0.0), yaw)
            if self.fits(candidate):
                return self.add(candidate)
        return None

    def near(self, piece: Piece, host: Placed, x: float, y: float, yaw: float, tuck: bool = False) -> Placed | None:
        """At a place given in the frame of `host`; with `tuck` it may reach under the host."""
        position = host.to_room(np.array([x, y, 0.0]))
        candidate = Placed(piece, (float(position[0]), float(position[1]), 0.0), host.yaw + yaw)
        return self.add(candidate) if self.fits(candidate, 0.0, host.instance if tuck else -1) else None

    def on_wall(self, piece: Piece, low: float, high: float, tries: int = 20) -> Placed | None:
        """Hung up with its origin between two heights."""
        width = float(piece.size[0])
        for _ in range(tries):
            wall = int(self.rng.integers(4))
            room = self.shell.wall_length(wall) - width
            if room < 0:
                continue
            u, z = self.rng.uniform(-room / 2, room / 2), self.rng.uniform(low, high)
            candidate = Placed(piece, self.shell.on_wall(wall, u, 0.0, z), self.shell.wall_yaw(wall))
            if self.fits(candidate, 0.05):
                return self.add(candidate)
        return None

    def on_top(self, piece: Piece, host: Placed, tries: int = 8, centred: bool = False) -> Placed | None:
        """On one of the host's tops, roughly facing as the host does."""
        tops = host.piece.tops
        if not tops:
            return None
        for _ in range(tries):
            top = tops[int(self.rng.integers(len(tops)))]
            if piece.size[2] > top.headroom:
                continue
            yaw = self.rng.normal(0, 0.03 if centred else 0.35)
            turned = Placed(piece, (0.0, 0.0, 0.0), yaw).box
            x0, x1 = top.x[0] - turned[0, 0], top.x[1] - turned[1, 0]
            y0, y1 = top.y[0] - turned[0, 1], top.y[1] - turned[1, 1]
            if x0 > x1 or y0 > y1:
                continue
            at = ((x0 + x1) / 2, (y0 + y1) / 2) if centred else (self.rng.uniform(x0, x1), self.rng.uniform(y0, y1))
            position = host.to_room(np.array([*at, top.z + 0.0005]))
            x, y, z = (float(value) for value in position)
            candidate = Placed(piece, (x, y, z), host.yaw + yaw)
            if self.fits(candidate, 0.0, host.instance):
                return self.add(candidate)
        return None
