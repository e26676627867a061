"""What belongs to walls and ceiling: windows, doors, pictures, curtains, lamps. Origin on the wall, y out of it."""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms import geometry as g
from emadeploy.data.rooms import materials
from emadeploy.data.rooms.classes import FLOOR, OBJECTS, PICTURE, TV, WALL, WINDOW
from emadeploy.data.rooms.materials import Material
from emadeploy.data.rooms.piece import Part, Piece


@dataclass(frozen=True)
class Opening:
    """A window in a wall: extent along the wall (u), height above the floor (z), metres."""

    u0: float
    u1: float
    z0: float
    z1: float
    reveal: float = 0.14  # how far the pane lies behind the wall

    @property
    def width(self) -> float:
        return self.u1 - self.u0

    @property
    def height(self) -> float:
        return self.z1 - self.z0


def _ring(width: float, height: float, bar: float, back: float, front: float) -> np.ndarray:
    """A rectangular frame around the origin, its outside `width` x `height`."""
    x, z = width / 2, height / 2
    return g.joined(
        g.box((-x, back, z - bar), (x, front, z)),
        g.box((-x, back, -z), (x, front, -z + bar)),
        g.box((-x, back, -z + bar), (-x + bar, front, z - bar)),
        g.box((x - bar, back, -z + bar), (x, front, z - bar)),
    )


def window(rng: np.random.Generator, opening: Opening, view: Material, frame: Material) -> Piece:
    """Frame, mullions, pane and sill; origin at the middle of the opening."""
    width, height, back = opening.width, opening.height, -opening.reveal
    bar = rng.uniform(0.04, 0.07)
    bars = [_ring(width, height, bar, back, back + 0.06)]
    for k in range(1, max(1, round(width / rng.uniform(0.5, 0.9)))):
        x = -width / 2 + k * width / max(1, round(width / 0.7))
        if x < width / 2 - 0.1:
            bars.append(g.box((x - bar / 2, back, -height / 2), (x + bar / 2, back + 0.05, height / 2)))
    if rng.random() < 0.5:
        z = height * rng.uniform(0.0, 0.3)
        bars.append(g.box((-width / 2, back, z - bar / 2), (width / 2, back + 0.05, z + bar / 2)))
    if rng.random() < 0.7:
        # A little above the hole's lower side, or the two would fight for the same pixels.
        top = -height / 2 + 0.005
        bars.append(g.box((-width / 2, back, top - 0.03), (width / 2, 0.0, top)))
        bars.append(g.box((-width / 2 - 0.04, 0.0, top - 0.03), (width / 2 + 0.04, 0.08, top)))
    pane = g.quad((-width / 2, back + 0.01, -height / 2), (width, 0, 0), (0, 0, height))
    parts = (Part(g.joined(*bars), WINDOW, frame), Part(pane, WINDOW, view, shadows=False))
    return Piece("window", parts)


def curtains(rng: np.random.Generator, opening: Opening, ceiling: float) -> Piece:
    """Folded cloth at both sides of a window and its rail; origin on the wall under the middle of the opening."""
    top = min(ceiling - 0.05, opening.z1 + rng.uniform(0.08, 0.25))
    bottom = 0.03 if rng.random() < 0.6 else max(0.1, opening.z0 - 0.15)
    each = opening.width * rng.uniform(0.14, 0.3)
    cloth = materials.turned(materials.fabric(rng))
    sheets = []
    for side in (-1, 1):
        n = 33
        t = np.linspace(0, 1, n)
        x = side * (opening.width / 2 + 0.12 - t * each)
        y = 0.09 + 0.035 * np.sin(t * rng.uniform(4, 7) * 2 * np.pi)
        low, high = np.stack([x, y, np.full(n, bottom)], axis=1), np.stack([x, y, np.full(n, top)], axis=1)
        sheets.append(np.stack([low[:-1], low[1:], high[1:]], axis=1))
        sheets.append(np.stack([low[:-1], high[1:], high[:-1]], axis=1))
    x = opening.width / 2 + 0.2
    rail = g.box((-x, 0.08, top), (x, 0.1, top + 0.025))
    return Piece("curtains", (Part(g.joined(*sheets), WINDOW, cloth), Part(rail, WINDOW, materials.hard(rng))))


def picture(rng: np.random.Generator) -> Piece:
    """A framed picture, sometimes a bare canvas or with a mount; origin at its middle."""
    width, height = rng.uniform(0.25, 1.2), rng.uniform(0.25, 0.9)
    bar, deep = rng.uniform(0.015, 0.06), rng.uniform(0.015, 0.04)
    inner_w, inner_h = width - 2 * bar, height - 2 * bar
    frame = Part(_ring(width, height, bar, 0, deep), PICTURE, materials.hard(rng))
    backing = g.quad((-inner_w / 2, deep * 0.4, -inner_h / 2), (inner_w, 0, 0), (0, 0, inner_h))
    if rng.random() < 0.4:
        mount = min(inner_w, inner_h) * rng.uniform(0.1, 0.2)
        w, h = inner_w - 2 * mount, inner_h - 2 * mount
        sheet = g.quad((-w / 2, deep * 0.4 + 0.002, -h / 2), (w, 0, 0), (0, 0, h))
        parts = (frame, Part(backing, PICTURE, materials.painted(rng, "pale")))
        return Piece("picture", (*parts, Part(sheet, PICTURE, materials.picture(rng, w, h))))
    return Piece("picture", (frame, Part(backing, PICTURE, materials.picture(rng, inner_w, inner_h))))


def wall_television(rng: np.random.Generator) -> Piece:
    """A flat screen on the wall; origin at its middle."""
    width = rng.uniform(0.9, 1.7)
    height, border = width * 0.57, rng.uniform(0.008, 0.025)
    body = g.box((-width / 2, 0.02, -height / 2), (width / 2, 0.07, height / 2))
    glass = g.quad(
        (-width / 2 + border, 0.071, -height / 2 + border), (width - 2 * border, 0, 0), (0, 0, height - 2 * border)
    )
    parts = (Part(body, TV, materials.painted(rng, "grey")), Part(glass, TV, materials.screen(rng, width, height)))
    return Piece("wall television", parts)


def door(rng: np.random.Generator) -> Piece:
    """A closed door with its frame: class `wall`. Origin on the floor under its middle."""
    width, height = rng.uniform(0.75, 0.95), rng.uniform(1.95, 2.1)
    frame = materials.painted(rng, "pale", "pale", "grey") if rng.random() < 0.6 else materials.wood(rng)
    leaf = frame if rng.random() < 0.6 else materials.hard(rng)
    casing = g.moved(_ring(width + 0.16, height + 0.16, 0.08, 0, 0.03), (0, 0, height / 2))
    casing = casing[casing[..., 2].max(axis=1) > 0.0]
    rows = int(rng.integers(1, 4))
    panels = g.boxes(
        [(0, 0.018, height * (r + 0.5) / rows) for r in range(rows)], [(width * 0.72, 0.02, height / rows - 0.2)] * rows
    )
    slab = g.box((-width / 2, 0, 0.0), (width / 2, 0.015, height))
    knob = g.moved(g.ball((0.06, 0.06, 0.06), segments=10, rings=6), (width * 0.42, 0.05, 1.02))
    parts = (
        Part(np.maximum(casing, (-np.inf, -np.inf, 0.0)), WALL, frame),
        Part(g.joined(slab, panels), WALL, materials.turned(leaf)),
        Part(knob, WALL, materials.metal(rng)),
    )
    return Piece("door", parts)


def rug(rng: np.random.Generator, width: float, depth: float) -> Piece:
    """A flat rug: class `floor`."""
    material = materials.rug_finish(rng)
    if rng.random() < 0.25:
        return Piece("rug", (Part(g.cylinder(min(width, depth) / 2, 0, 0.012, 36), FLOOR, material),))
    return Piece("rug", (Part(g.box((-width / 2, -depth / 2, 0), (width / 2, depth / 2, 0.012)), FLOOR, material),))


def ceiling_lamp(rng: np.random.Generator, lit: bool) -> Piece:
    """A lamp under the ceiling, flat or hanging on a cord; origin on the ceiling, everything below it."""
    drop = 0.0 if rng.random() < 0.5 else rng.uniform(0.25, 0.6)
    radius = rng.uniform(0.12, 0.25)
    shade = materials.lampshade(rng, rng.uniform(1.5, 3.0) if lit else 0.0)
    if rng.random() < 0.5:
        shape = g.moved(g.ball((2 * radius, 2 * radius, radius * 1.2), segments=24), (0, 0, -drop - radius * 0.6))
    else:
        shape = g.lathe([(0, -drop), (radius * 0.5, -drop), (radius, -drop - radius), (0, -drop - radius)], 24)
    parts = [Part(shape, OBJECTS, shade, shadows=False)]
    if drop:
        parts.append(Part(g.cylinder(0.008, -drop, 0.0, 8), OBJECTS, materials.painted(rng, "grey")))
    light = (0.0, 0.0, -drop - radius * 1.25)
    return Piece("ceiling lamp", tuple(parts), light=light if lit else None)
