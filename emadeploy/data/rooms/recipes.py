"""What a room is furnished with: bedrooms, living rooms, dining rooms, studies, and what all of them have."""

import numpy as np

from emadeploy.data.rooms import fixtures, furniture, small, storage
from emadeploy.data.rooms.layout import Furnisher, Room
from emadeploy.data.rooms.piece import Placed
from emadeploy.data.rooms.shell import draw_shell


def _bedroom(f: Furnisher) -> None:
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
    if rng.random() < 0.6:
        _television(f)


def _living(f: Furnisher) -> None:
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
    if rng.random() < 0.9:
        _television(f)
    for _ in range(int(rng.integers(0, 3))):
        f.free_standing(furniture.armchair(rng), spread=0.8)
    if rng.random() < 0.75:
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.3:
        f.against_wall(furniture.sofa(rng))


def _dining(f: Furnisher) -> None:
    rng = f.rng
    table = f.free_standing(furniture.dining_table(rng), tries=60, spread=0.5, straight=True)
    if table is not None:
        _chairs_around(f, table)
    f.against_wall(storage.dresser(rng))
    if rng.random() < 0.6:
        f.against_wall(storage.counter(rng))
    if rng.random() < 0.5:
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.5:
        _television(f)


def _study(f: Furnisher) -> None:
    rng = f.rng
    _desk(f)
    for _ in range(int(rng.integers(1, 4))):
        f.against_wall(storage.bookcase(rng))
    if rng.random() < 0.4:
        f.against_wall(furniture.sofa(rng))
    if rng.random() < 0.4:
        f.against_wall(furniture.bed(rng))
    if rng.random() < 0.4:
        _television(f)
    if rng.random() < 0.5:
        f.free_standing(furniture.armchair(rng), spread=0.8)


def _mixed(f: Furnisher) -> None:
    rng = f.rng
    kinds = (_bedroom, _living, _dining, _study)
    for k in rng.permutation(len(kinds))[:2]:
        if len(f.things) < f.target - 3:
            kinds[k](f)


def _chairs_around(f: Furnisher, table: Placed) -> None:
    rng = f.rng
    piece = furniture.chair(rng)
    width, depth = table.piece.size[0], table.piece.size[1]
    along = [0.0] if width < 1.2 else [-width / 4, width / 4]
    seats = [(x, -depth / 2, 0.0) for x in along] + [(x, depth / 2, np.pi) for x in along]
    seats += [(-width / 2, 0.0, -np.pi / 2), (width / 2, 0.0, np.pi / 2)]
    for x, y, yaw in rng.permutation(np.array(seats))[: int(rng.integers(2, len(seats) + 1))]:
        away = rng.uniform(0.0, 0.3)
        f.near(piece, table, x + away * np.sin(yaw), y - away * np.cos(yaw), yaw + rng.normal(0, 0.15), tuck=True)


def _desk(f: Furnisher) -> None:
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


def _television(f: Furnisher) -> None:
    rng = f.rng
    if rng.random() < 0.4 and f.on_wall(fixtures.wall_television(rng), 1.1, 1.5) is not None:
        return
    stand = f.against_wall(storage.tv_stand(rng))
    if stand is not None:
        f.on_top(small.television(rng), stand, centred=True)


def _fixtures(f: Furnisher) -> None:
    """Doors, curtains, ceiling lamps: in every room, and not counted as things."""
    rng, shell = f.rng, f.shell
    for wall in rng.permutation(4)[: int(rng.integers(1, 3))]:
        piece = fixtures.door(rng)
        room = shell.wall_length(int(wall)) - piece.size[0]
        u = rng.uniform(-room / 2, room / 2)
        candidate = Placed(piece, shell.on_wall(int(wall), u, 0.0, 0.0), shell.wall_yaw(int(wall)))
        if f.fits(candidate):
            half = piece.size[0] / 2
            f.add(candidate, thing=False, zone=f.zone(int(wall), u - half, u + half, 0.6, 0.0, 2.1))
    for wall, openings in enumerate(shell.openings):
        for opening in openings:
            if rng.random() < 0.45:
                piece = fixtures.curtains(rng, opening, shell.height)
                u = (opening.u0 + opening.u1) / 2
                half = min(piece.size[0] / 2, shell.wall_length(wall) / 2 - abs(u))
                if piece.size[0] / 2 <= half:
                    zone = f.zone(wall, u - half, u + half, 0.2, float(piece.bounds[0, 2]), shell.height)
                    f.add(Placed(piece, shell.on_wall(wall, u, 0, 0), shell.wall_yaw(wall)), thing=False, zone=zone)
    lit = rng.random() < (0.9 if shell.daylight < 0.5 else 0.45)
    for k in range(2 if shell.width > 4.6 else 1):
        x = 0.0 if shell.width <= 4.6 else (k - 0.5) * shell.width / 2
        lamp = Placed(fixtures.ceiling_lamp(rng, lit), (x, 0.0, shell.height))
        f.add(lamp, thing=False)


def furnish(rng: np.random.Generator) -> Room:
    """A whole room: the shell, its fixtures, furniture after one of five recipes, pictures and small things."""
    f = Furnisher(rng, draw_shell(rng))
    _fixtures(f)
    if rng.random() < 0.45:
        wide, deep = rng.uniform(1.2, 2.6), rng.uniform(1.0, 2.0)
        at = (rng.uniform(-0.15, 0.15) * f.shell.width, rng.uniform(-0.15, 0.15) * f.shell.depth, 0.001)
        rug = Placed(fixtures.rug(rng, wide, deep), at, float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.05))
        # Furniture may stand on it, so it takes no place.
        f.add(rug, thing=False, zone=np.full((2, 3), np.inf))
    recipes = (_bedroom, _living, _dining, _study, _mixed)
    recipes[int(rng.choice(5, p=(0.27, 0.3, 0.12, 0.13, 0.18)))](f)
    for _ in range(int(rng.integers(1, 5))):
        if not f.full:
            f.on_wall(fixtures.picture(rng), 1.3, 1.8)
    if not f.full and rng.random() < 0.45:
        f.on_wall(storage.wall_shelf(rng), 1.1, 1.6)
    _small_things(f)
    return Room(f.shell, tuple(f.placed), len(f.things))


def _small_things(f: Furnisher) -> None:
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
