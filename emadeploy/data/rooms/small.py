"""Small things: what stands on tables, shelves and floors. Mostly the class `objects`; televisions too."""

from collections.abc import Callable

import numpy as np

from emadeploy.data.rooms import geometry as g
from emadeploy.data.rooms import materials, storage
from emadeploy.data.rooms.classes import OBJECTS, TV
from emadeploy.data.rooms.piece import Part, Piece


def vase(rng: np.random.Generator) -> Piece:
    height, belly = rng.uniform(0.12, 0.4), rng.uniform(0.04, 0.12)
    neck = belly * rng.uniform(0.3, 0.9)
    profile = [(0, 0), (belly * 0.6, 0), (belly, height * 0.35), (belly * 0.9, height * 0.55)]
    profile += [
        (neck, height * 0.8),
        (neck * 1.15, height),
        (neck * 0.9, height),
        (neck * 0.8, height * 0.7),
        (0, 0.05),
    ]
    return Piece("vase", (Part(g.lathe(profile), OBJECTS, materials.glazed(rng)),))


def bottle(rng: np.random.Generator) -> Piece:
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.2, 0.34)
    shoulder = height * rng.uniform(0.5, 0.7)
    profile = [(0, 0), (radius, 0), (radius, shoulder), (0.013, shoulder + 0.05), (0.013, height), (0, height)]
    return Piece("bottle", (Part(g.lathe(profile, 16), OBJECTS, materials.glazed(rng)),))


def cup(rng: np.random.Generator) -> Piece:
    radius, height = rng.uniform(0.035, 0.05), rng.uniform(0.07, 0.11)
    profile = [(0, 0), (radius * 0.8, 0), (radius, height), (radius * 0.9, height), (radius * 0.7, 0.01), (0, 0.01)]
    return Piece("cup", (Part(g.lathe(profile, 16), OBJECTS, materials.glazed(rng)),))


def bowl(rng: np.random.Generator) -> Piece:
    radius, height = rng.uniform(0.08, 0.18), rng.uniform(0.05, 0.1)
    outer = [(0, 0), (radius * 0.45, 0), (radius * 0.8, height * 0.4), (radius, height)]
    inner = [(radius * 0.95, height), (radius * 0.74, height * 0.45), (radius * 0.4, 0.015), (0, 0.012)]
    parts = [Part(g.lathe(outer + inner, 24), OBJECTS, materials.glazed(rng))]
    if rng.random() < 0.6:
        size = radius * 0.6
        fruit = g.ball((size, size, size), segments=14, rings=8)
        spots = [(np.cos(a) * radius * 0.42, np.sin(a) * radius * 0.42, height * 0.8) for a in (0.3, 2.4, 4.5)]
        parts.append(Part(g.joined(*(g.moved(fruit, s) for s in spots)), OBJECTS, materials.painted(rng, "vivid")))
    return Piece("bowl", tuple(parts))


def ball(rng: np.random.Generator) -> Piece:
    size = rng.uniform(0.08, 0.3)
    shape = g.moved(g.ball((size, size, size), segments=24, rings=14), (0, 0, size / 2))
    return Piece("ball", (Part(shape, OBJECTS, materials.glazed(rng)),))


def carton(rng: np.random.Generator) -> Piece:
    width, depth, height = rng.uniform(0.12, 0.45), rng.uniform(0.1, 0.35), rng.uniform(0.08, 0.4)
    material = materials.cardboard(rng) if rng.random() < 0.5 else materials.glazed(rng)
    parts = [Part(g.box((-width / 2, -depth / 2, 0), (width / 2, depth / 2, height)), OBJECTS, material)]
    if rng.random() < 0.4:
        lid = g.box(
            (-width / 2 - 0.008, -depth / 2 - 0.008, height * 0.8),
            (width / 2 + 0.008, depth / 2 + 0.008, height + 0.005),
        )
        parts.append(Part(lid, OBJECTS, materials.glazed(rng)))
    return Piece("carton", tuple(parts))


def open_carton(rng: np.random.Generator) -> Piece:
    """A cardboard box without a lid, its flaps hanging out."""
    width, depth, height = rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4)
    x, y = width / 2, depth / 2
    sides = [g.box((-x, s * y - 0.005, 0), (x, s * y + 0.005, height)) for s in (-1, 1)]
    sides += [g.box((s * x - 0.005, -y, 0), (s * x + 0.005, y, height)) for s in (-1, 1)]
    sides.append(g.box((-x, -y, 0), (x, y, 0.01)))
    flap = g.quad((-x, y, height), (width, 0, 0), (0, 0.09, rng.uniform(-0.08, 0.08)))
    return Piece("open carton", (Part(g.joined(*sides, flap), OBJECTS, materials.cardboard(rng)),))


def bin_(rng: np.random.Generator) -> Piece:
    radius, height = rng.uniform(0.1, 0.17), rng.uniform(0.25, 0.5)
    profile = [(0, 0), (radius * 0.8, 0), (radius, height), (radius * 0.95, height), (radius * 0.75, 0.02), (0, 0.02)]
    return Piece("bin", (Part(g.lathe(profile, 24), OBJECTS, materials.glazed(rng)),))


def bag(rng: np.random.Generator) -> Piece:
    width, depth, height = rng.uniform(0.25, 0.4), rng.uniform(0.15, 0.25), rng.uniform(0.25, 0.42)
    body = g.moved(g.ball((width, depth, height), 0.5), (0, 0, height / 2))
    pocket = g.moved(g.ball((width * 0.7, 0.1, height * 0.5), 0.4), (0, depth / 2 - 0.02, height * 0.35))
    cloth = materials.fabric(rng)
    return Piece("bag", (Part(g.joined(body, pocket), OBJECTS, cloth),))


def plant(rng: np.random.Generator, height: float) -> Piece:
    """A pot with earth and arching leaves."""
    pot = rng.uniform(0.25, 0.38) * height
    radius = pot * rng.uniform(0.35, 0.55)
    profile = [
        (0, 0),
        (radius * 0.7, 0),
        (radius, pot),
        (radius * 0.88, pot),
        (radius * 0.86, pot * 0.9),
        (0, pot * 0.9),
    ]
    leaves = []
    count = int(rng.integers(10, 26))
    for k in range(count):
        angle = k * 2.399963 + rng.normal(0, 0.2)
        reach, tall = radius * rng.uniform(0.9, 2.6), rng.uniform(0.35, 1.0) * (height - pot)
        wide = rng.uniform(0.06, 0.12) * (height - pot)
        t = np.linspace(0, 1, 5)
        spine = np.stack([reach * t**1.5, np.zeros(5), pot * 0.9 + tall * (1.6 * t - 0.6 * t**2.6)], axis=1)
        half = wide * np.sin(np.pi * np.clip(t * 0.92 + 0.06, 0, 1))
        left, right = spine + np.stack([0 * t, half, 0 * t], 1), spine - np.stack([0 * t, half, 0 * t], 1)
        first = np.stack([left[:-1], right[:-1], right[1:]], axis=1)
        second = np.stack([left[:-1], right[1:], left[1:]], axis=1)
        leaves.append(g.turned(np.concatenate([first, second]), angle))
    green = materials.Material(
        "plain", ((0.05 + 0.15 * rng.random(), 0.12 + 0.3 * rng.random(), 0.04), (0.04, 0.12, 0.03)), 0.05, gloss=0.15
    )
    parts = (Part(g.lathe(profile), OBJECTS, materials.glazed(rng)), Part(g.joined(*leaves), OBJECTS, green))
    return Piece("plant", parts)


def pot_plant(rng: np.random.Generator) -> Piece:
    return plant(rng, rng.uniform(0.2, 0.45))


def big_plant(rng: np.random.Generator) -> Piece:
    return plant(rng, rng.uniform(0.7, 1.5))


def _lamp(rng: np.random.Generator, height: float, shade: float, foot: list[tuple[float, float]], lit: bool) -> Piece:
    top = shade * rng.uniform(0.5, 0.95)
    tall = shade * rng.uniform(0.8, 1.5)
    hood = g.lathe([(shade, height - tall), (top, height)], 24)
    stand = g.lathe([(0, 0), *foot, (0.012, height - tall * 0.4), (0, height - tall * 0.4)], 16)
    cloth = materials.lampshade(rng, rng.uniform(1.2, 2.5) if lit else 0.0)
    parts = (Part(stand, OBJECTS, materials.hard(rng)), Part(hood, OBJECTS, cloth, shadows=False))
    return Piece("lamp", parts, light=(0, 0, height - tall * 0.35) if lit else None)


def table_lamp(rng: np.random.Generator) -> Piece:
    height = rng.uniform(0.35, 0.6)
    belly = rng.uniform(0.03, 0.08)
    foot = [(belly * 1.2, 0.0), (belly * 1.2, 0.02), (belly, height * 0.2), (0.015, height * 0.4)]
    return _lamp(rng, height, rng.uniform(0.1, 0.18), foot, bool(rng.random() < 0.6))


def floor_lamp(rng: np.random.Generator) -> Piece:
    foot = [(0.15, 0.0), (0.15, 0.02), (0.015, 0.03)]
    return _lamp(rng, rng.uniform(1.4, 1.75), rng.uniform(0.15, 0.24), foot, bool(rng.random() < 0.6))


def laptop(rng: np.random.Generator) -> Piece:
    width, depth = rng.uniform(0.3, 0.38), rng.uniform(0.2, 0.26)
    case = materials.metal(rng)
    base = g.box((-width / 2, -depth / 2, 0), (width / 2, depth / 2, 0.018))
    keys = g.quad((-width / 2 + 0.02, -depth / 2 + 0.03, 0.019), (width - 0.04, 0, 0), (0, depth * 0.55, 0))
    lean = rng.uniform(0.1, 0.5)
    lid = g.tilted(g.box((-width / 2, -0.006, 0), (width / 2, 0.006, depth)), lean)
    glass = g.tilted(g.quad((-width / 2 + 0.01, 0.007, 0.015), (width - 0.02, 0, 0), (0, 0, depth - 0.03)), lean)
    hinge = (0, -depth / 2, 0.018)
    parts = (
        Part(g.joined(base, g.moved(lid, hinge)), OBJECTS, case),
        Part(keys, OBJECTS, materials.painted(rng, "grey")),
        Part(g.moved(glass, hinge), OBJECTS, materials.screen(rng, width, depth), origin=(0, 0, depth / 2)),
    )
    return Piece("laptop", parts)


def television(rng: np.random.Generator, width: float | None = None) -> Piece:
    """A flat screen on a foot."""
    width = rng.uniform(0.8, 1.5) if width is None else width
    height, foot = width * 0.57, rng.uniform(0.04, 0.09)
    case = materials.painted(rng, "grey") if rng.random() < 0.7 else materials.metal(rng)
    border = rng.uniform(0.008, 0.03)
    body = [
        g.box((-width / 2, -0.03, foot), (width / 2, 0.02, foot + height)),
        g.box((-0.04, -0.02, 0), (0.04, 0.0, foot)),
        g.box((-width * 0.22, -0.1, 0), (width * 0.22, 0.1, 0.015)),
    ]
    origin = (0.0, 0.0, foot + height / 2)
    glass = g.quad((-width / 2 + border, 0.021, foot + border), (width - 2 * border, 0, 0), (0, 0, height - 2 * border))
    screen = Part(glass, TV, materials.screen(rng, width - 2 * border, height - 2 * border), origin=origin)
    return Piece("television", (Part(g.joined(*body), TV, case), screen))


def monitor(rng: np.random.Generator) -> Piece:
    return television(rng, rng.uniform(0.45, 0.65))


def clock(rng: np.random.Generator) -> Piece:
    """A round clock for a shelf or a table."""
    radius = rng.uniform(0.05, 0.12)
    case = g.moved(g.tilted(g.cylinder(radius, -0.02, 0.02, 24), np.pi / 2), (0, 0, radius))
    face = g.moved(g.tilted(g.cylinder(radius * 0.85, -0.001, 0.001, 24), np.pi / 2), (0, 0.021, radius))
    hands = g.boxes(
        [(0, 0.024, radius * 1.25), (radius * 0.2, 0.024, radius)],
        [(0.008, 0.004, radius * 0.5), (radius * 0.4, 0.004, 0.008)],
    )
    parts = (
        Part(case, OBJECTS, materials.hard(rng)),
        Part(face, OBJECTS, materials.painted(rng, "pale")),
        Part(hands, OBJECTS, materials.painted(rng, "grey")),
    )
    return Piece("clock", parts)


Maker = Callable[[np.random.Generator], Piece]

# What stands on a table, a shelf or a cupboard, and what stands on the floor; a maker is drawn as often as it is named.
ON_TOPS: tuple[Maker, ...] = (
    *(vase, bottle, cup, bowl, carton, pot_plant, table_lamp, laptop, clock, ball),
    *(storage.book_pile, storage.book_pile, storage.standing_books),
)
ON_FLOOR: tuple[Maker, ...] = (ball, carton, open_carton, bin_, bag, big_plant, floor_lamp, storage.book_pile)
