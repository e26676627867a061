"""Furnishing: which pieces a room gets and where they stand.

Pieces are tried at random places and kept where their upright boxes meet nothing else; what does not fit after some
tries is left out. All randomness comes from the generator given.
"""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms import fixtures, furniture, small, storage
from emadeploy.data.rooms.piece import Piece, Placed
from emadeploy.data.rooms.shell import FIRST_FREE, Shell, build_shell, draw_shell

MIN_OBJECTS, MAX_OBJECTS = 5, 20


@dataclass(frozen=True)
class Room:
    """A furnished room. `objects` counts its things: everything but the shell, windows, curtains, doors, rugs and
    ceiling lamps."""

    shell: Shell
    placed: tuple[Placed, ...]
    objects: int


class _Furnisher:
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
            self._taken[FIRST_FREE + k] = self._zone(wall, o.u0, o.u1, 0.25, o.z0, o.z1)

    def _zone(self, wall: int, u0: float, u1: float, out: float, z0: float, z1: float) -> np.ndarray:
        """The box in front of a stretch of wall."""
        corners = np.array([self.shell.on_wall(wall, u0, 0.0, z0), self.shell.on_wall(wall, u1, out, z1)])
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def _add(self, placed: Placed, *, thing: bool = True, zone: np.ndarray | None = None) -> Placed:
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

    def _fits(self, candidate: Placed, margin: float = 0.02, ignore: int = -1) -> bool:
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
            if self._fits(candidate):
                return self._add(candidate)
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
            if self._fits(candidate):
                return self._add(candidate)
        return None

    def near(self, piece: Piece, host: Placed, x: float, y: float, yaw: float, tuck: bool = False) -> Placed | None:
        """At a place given in the frame of `host`; with `tuck` it may reach under the host."""
        position = host.to_room(np.array([x, y, 0.0]))
        candidate = Placed(piece, (float(position[0]), float(position[1]), 0.0), host.yaw + yaw)
        return self._add(candidate) if self._fits(candidate, 0.0, host.instance if tuck else -1) else None

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
            if self._fits(candidate, 0.05):
                return self._add(candidate)
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
            if self._fits(candidate, 0.0, host.instance):
                return self._add(candidate)
        return None


def _bedroom(f: _Furnisher) -> None:
    rng = f.rng
    bed = f.against_wall(furniture.bed(rng), tries=60)
    if bed is not None:
        half = bed.piece.size[0] / 2
        for side in (-1, 1):
            if rng.random() < 0.75:
                stand = storage.night_stand(rng)
                x = side * (half + stand.size[0] / 2 + 0.06)
                placed = f.near(stand, bed, x, bed.piece.bounds[0, 1] - stand.bounds[0, 1], 0.0)
                if placed is not None and rng.random() < 0.6:
                    f.on_top(small.table_lamp(rng), placed)
    f.against_wall(storage.wardrobe(rng) if rng.random() < 0.6 else storage.dresser(rng))
    if rng.random() < 0.4:
        _desk(f)
    if rng.random() < 0.5:
        f.against_wall(storage.dresser(rng))
    if rng.random() < 0.4:
        _television(f)


def _living(f: _Furnisher) -> None:
    rng = f.rng
    sofa = f.against_wall(furniture.sofa(rng), tries=60)
    if sofa is not None:
        front = sofa.piece.size[1] / 2
        if rng.random() < 0.8:
            low = furniture.coffee_table(rng)
            f.near(
                low, sofa, rng.normal(0, 0.15), front + low.size[1] / 2 + rng.uniform(0.25, 0.5), rng.normal(0, 0.03)
            )
        if rng.random() < 0.4:
            table = furniture.side_table(rng)
            x = float(rng.choice([-1, 1])) * (sofa.piece.size[0] / 2 + table.size[0] / 2 + 0.08)
            placed = f.near(table, sofa, x, 0.0, 0.0)
            if placed is not None:
                f.on_top(small.table_lamp(rng), placed)
    if rng.random() < 0.8:
        _television(f)
    for _ in range(int(rng.integers(0, 3))):
        f.free_standing(furniture.armchair(rng), spread=0.8)
    if rng.random() < 0.75:
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.3:
        f.against_wall(furniture.sofa(rng))


def _dining(f: _Furnisher) -> None:
    rng = f.rng
    table = f.free_standing(furniture.dining_table(rng), tries=60, spread=0.5, straight=True)
    if table is not None:
        _chairs_around(f, table)
    f.against_wall(storage.dresser(rng))
    if rng.random() < 0.6:
        f.against_wall(storage.counter(rng))
    if rng.random() < 0.5:
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.3:
        _television(f)


def _study(f: _Furnisher) -> None:
    rng = f.rng
    _desk(f)
    for _ in range(int(rng.integers(1, 4))):
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.4:
        f.against_wall(furniture.sofa(rng))
    if rng.random() < 0.4:
        f.against_wall(furniture.bed(rng))
    if rng.random() < 0.5:
        f.free_standing(furniture.armchair(rng), spread=0.8)


def _mixed(f: _Furnisher) -> None:
    rng = f.rng
    for kind in rng.permutation([_bedroom, _living, _dining, _study])[:2]:
        if len(f.things) < f.target - 3:
            kind(f)


def _chairs_around(f: _Furnisher, table: Placed) -> None:
    rng = f.rng
    style = int(rng.integers(2**31))
    width, depth = table.piece.size[0], table.piece.size[1]
    along = [0.0] if width < 1.2 else [-width / 4, width / 4]
    seats = [(x, -depth / 2, 0.0) for x in along] + [(x, depth / 2, np.pi) for x in along]
    seats += [(-width / 2, 0.0, -np.pi / 2), (width / 2, 0.0, np.pi / 2)]
    for x, y, yaw in rng.permutation(np.array(seats))[: int(rng.integers(2, len(seats) + 1))]:
        # The same generator state makes the same chair: a set around one table looks alike.
        piece = furniture.chair(np.random.Generator(np.random.PCG64(style)))
        away = rng.uniform(0.0, 0.3)
        f.near(piece, table, x + away * np.sin(yaw), y - away * np.cos(yaw), yaw + rng.normal(0, 0.15), tuck=True)


def _desk(f: _Furnisher) -> None:
    rng = f.rng
    desk = f.against_wall(furniture.desk(rng), tries=40)
    if desk is None:
        return
    if rng.random() < 0.8:
        seat = furniture.office_chair(rng) if rng.random() < 0.6 else furniture.chair(rng)
        y = desk.piece.size[1] / 2 + rng.uniform(0.1, 0.4)
        f.near(seat, desk, rng.uniform(-0.2, 0.2), y, np.pi + rng.normal(0, 0.4), tuck=True)
    if rng.random() < 0.6:
        f.on_top(small.monitor(rng), desk, centred=True)
    else:
        f.on_top(small.laptop(rng), desk)


def _television(f: _Furnisher) -> None:
    rng = f.rng
    if rng.random() < 0.3 and f.on_wall(fixtures.wall_television(rng), 1.1, 1.5) is not None:
        return
    stand = f.against_wall(storage.tv_stand(rng))
    if stand is not None:
        f.on_top(small.television(rng), stand, centred=True)


def _fixtures(f: _Furnisher) -> None:
    """Doors, curtains, ceiling lamps: in every room, and not counted as things."""
    rng, shell = f.rng, f.shell
    for wall in rng.permutation(4)[: int(rng.integers(1, 3))]:
        piece = fixtures.door(rng)
        room = shell.wall_length(int(wall)) - piece.size[0]
        u = rng.uniform(-room / 2, room / 2)
        candidate = Placed(piece, shell.on_wall(int(wall), u, 0.0, 0.0), shell.wall_yaw(int(wall)))
        if f._fits(candidate):
            half = piece.size[0] / 2
            f._add(candidate, thing=False, zone=f._zone(int(wall), u - half, u + half, 0.6, 0.0, 2.1))
    for wall, openings in enumerate(shell.openings):
        for opening in openings:
            if rng.random() < 0.45:
                piece = fixtures.curtains(rng, opening, shell.height)
                u = (opening.u0 + opening.u1) / 2
                half = min(piece.size[0] / 2, shell.wall_length(wall) / 2 - abs(u))
                if piece.size[0] / 2 <= half:
                    zone = f._zone(wall, u - half, u + half, 0.2, float(piece.bounds[0, 2]), shell.height)
                    f._add(Placed(piece, shell.on_wall(wall, u, 0, 0), shell.wall_yaw(wall)), thing=False, zone=zone)
    lit = rng.random() < (0.9 if shell.daylight < 0.5 else 0.45)
    for k in range(2 if shell.width > 4.6 else 1):
        x = 0.0 if shell.width <= 4.6 else (k - 0.5) * shell.width / 2
        lamp = Placed(fixtures.ceiling_lamp(rng, lit), (x, 0.0, shell.height))
        f._add(lamp, thing=False)


def furnish(rng: np.random.Generator) -> Room:
    """A whole room: the shell, its fixtures, furniture after one of five recipes, pictures and small things."""
    f = _Furnisher(rng, draw_shell(rng))
    _fixtures(f)
    if rng.random() < 0.45:
        wide, deep = rng.uniform(1.2, 2.6), rng.uniform(1.0, 2.0)
        at = (rng.uniform(-0.15, 0.15) * f.shell.width, rng.uniform(-0.15, 0.15) * f.shell.depth, 0.001)
        rug = Placed(fixtures.rug(rng, wide, deep), at, float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.05))
        # Furniture may stand on it, so it takes no place.
        f._add(rug, thing=False, zone=np.full((2, 3), np.inf))
    recipes = (_bedroom, _living, _dining, _study, _mixed)
    recipes[int(rng.choice(5, p=(0.2, 0.25, 0.2, 0.15, 0.2)))](f)
    for _ in range(int(rng.integers(1, 5))):
        if not f.full:
            f.on_wall(fixtures.picture(rng), 1.3, 1.8)
    if not f.full and rng.random() < 0.45:
        f.on_wall(storage.wall_shelf(rng), 1.1, 1.6)
    _small_things(f)
    return Room(f.shell, tuple(f.placed), len(f.things))


def _small_things(f: _Furnisher) -> None:
    rng = f.rng
    for _ in range(80):
        if f.full:
            return
        hosts = [p for p in f.things if p.piece.tops]
        if hosts and rng.random() < 0.7:
            maker = small.ON_TOPS[int(rng.integers(len(small.ON_TOPS)))]
            f.on_top(maker(rng), hosts[int(rng.integers(len(hosts)))])
        else:
            maker = small.ON_FLOOR[int(rng.integers(len(small.ON_FLOOR)))]
            f.free_standing(maker(rng))
