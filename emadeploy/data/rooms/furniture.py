"""Beds, sofas, chairs and tables. Every function draws one piece; sizes in metres."""

import numpy as np

from emadeploy.data.rooms import geometry as g
from emadeploy.data.rooms import materials
from emadeploy.data.rooms.classes import BED, CHAIR, SOFA, TABLE
from emadeploy.data.rooms.piece import Part, Piece, Top


def _legs(width: float, depth: float, height: float, thickness: float, inset: float = 0.0) -> np.ndarray:
    """Four upright legs at the corners of a footprint."""
    x, y = width / 2 - thickness / 2 - inset, depth / 2 - thickness / 2 - inset
    centres = [(sx * x, sy * y, height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    return g.boxes(centres, [(thickness, thickness, height)] * 4)


def _slab(width: float, depth: float, low: float, high: float) -> np.ndarray:
    return g.box((-width / 2, -depth / 2, low), (width / 2, depth / 2, high))


def _cushion(width: float, depth: float, height: float, at: tuple[float, float, float]) -> np.ndarray:
    return g.moved(g.ball((width, depth, height), 0.35, segments=24, rings=8), at)


def bed(rng: np.random.Generator) -> Piece:
    width, length = float(rng.choice([0.9, 1.2, 1.4, 1.6, 1.8])), rng.uniform(1.9, 2.1)
    base, top = rng.uniform(0.18, 0.32), rng.uniform(0.45, 0.6)
    frame, sheet, cover = materials.hard(rng), materials.fabric(rng), materials.fabric(rng)
    back = -length / 2
    parts = [Part(_slab(width, length, 0.08, base), BED, frame), Part(_legs(width, length, 0.08, 0.07), BED, frame)]
    mattress = g.ball((width - 0.03, length - 0.06, top - base), 0.12, segments=24, rings=8)
    parts.append(Part(g.moved(mattress, (0, 0, (top + base) / 2)), BED, sheet))
    if rng.random() < 0.85:
        height = rng.uniform(0.8, 1.3)
        board = g.box((-width / 2 - 0.03, back - 0.06, 0.0), (width / 2 + 0.03, back, height))
        parts.append(Part(board, BED, frame if rng.random() < 0.6 else materials.fabric(rng)))
    if rng.random() < 0.25:
        parts.append(Part(g.box((-width / 2, -back, 0), (width / 2, -back + 0.05, top + 0.15)), BED, frame))
    # The blanket lies over the mattress and hangs down at three sides.
    start = back + rng.uniform(0.45, 0.9)
    drop = rng.uniform(0.1, 0.3)
    blanket = g.ball((width + 0.05, -back - start + 0.03, drop + 0.06), 0.15, segments=28, rings=8)
    parts.append(Part(g.moved(blanket, (0, (start - back) / 2 + 0.01, top + 0.03 - drop / 2)), BED, cover))
    pillow_cloth = materials.fabric(rng) if rng.random() < 0.6 else sheet
    count = 1 if width < 1.3 else 2
    for k in range(count):
        x = (k - (count - 1) / 2) * width / count
        pillow = g.turned(g.ball((min(0.65, width / count - 0.08), 0.42, 0.16), 0.6), rng.normal(0, 0.06))
        parts.append(Part(g.moved(pillow, (x, back + 0.28, top + 0.06)), BED, pillow_cloth))
    return Piece("bed", tuple(parts))


def sofa(rng: np.random.Generator) -> Piece:
    seats = int(rng.integers(2, 4))
    arm = rng.uniform(0.1, 0.24)
    width, depth = seats * rng.uniform(0.6, 0.72) + 2 * arm, rng.uniform(0.8, 1.0)
    seat, arm_height, height = rng.uniform(0.4, 0.47), rng.uniform(0.55, 0.68), rng.uniform(0.75, 0.95)
    cloth = materials.fabric(rng)
    back_depth = 0.2
    body = g.joined(
        _slab(width, depth, 0.1, seat - 0.14),
        g.box((-width / 2, -depth / 2, 0.1), (width / 2, -depth / 2 + back_depth, height - 0.08)),
    )
    parts = [Part(body, SOFA, cloth), Part(_legs(width, depth, 0.1, 0.06, 0.04), SOFA, materials.hard(rng))]
    for side in (-1, 1):
        x = side * (width - arm) / 2
        shape = g.ball((arm, depth, arm_height - 0.1), 0.2, segments=20, rings=8)
        parts.append(Part(g.moved(shape, (x, 0, 0.05 + arm_height / 2)), SOFA, cloth))
    each = (width - 2 * arm) / seats
    cushions = []
    for k in range(seats):
        x = (k - (seats - 1) / 2) * each
        cushions.append(_cushion(each - 0.01, depth - back_depth + 0.02, 0.18, (x, back_depth / 2, seat - 0.06)))
        back = g.tilted(_cushion(each - 0.02, 0.2, height - seat + 0.04, (0, 0, 0)), 0.15)
        cushions.append(g.moved(back, (x, -depth / 2 + back_depth + 0.04, (height + seat) / 2)))
    parts.append(Part(g.joined(*cushions), SOFA, cloth if rng.random() < 0.8 else materials.fabric(rng)))
    for _ in range(int(rng.integers(0, 4))):
        throw = g.tilted(g.ball((0.42, 0.14, 0.42), 0.55), rng.uniform(0.1, 0.35))
        x = rng.uniform(-0.5, 0.5) * (width - 2 * arm - 0.4)
        at = (x, -depth / 2 + back_depth + 0.22, seat + 0.24)
        parts.append(Part(g.moved(throw, at), SOFA, materials.fabric(rng)))
    return Piece("sofa", tuple(parts))


def armchair(rng: np.random.Generator) -> Piece:
    width, depth, seat = rng.uniform(0.7, 0.85), rng.uniform(0.7, 0.85), rng.uniform(0.38, 0.45)
    height, arm = rng.uniform(0.8, 1.05), rng.uniform(0.1, 0.16)
    cloth = materials.fabric(rng)
    body = [_slab(width - 0.02, depth, 0.14, seat - 0.1)]
    for side in (-1, 1):
        shape = g.ball((arm, depth, 0.48), 0.3, segments=20, rings=8)
        body.append(g.moved(shape, (side * (width - arm) / 2, 0, 0.38)))
    back = g.tilted(g.ball((width - 0.04, 0.2, height - 0.2), 0.35, segments=20, rings=8), 0.14)
    body.append(g.moved(back, (0, -depth / 2 + 0.12, (height + 0.2) / 2)))
    body.append(_cushion(width - 2 * arm, depth - 0.15, 0.18, (0, 0.06, seat - 0.05)))
    legs = Part(_legs(width, depth, 0.14, 0.05, 0.03), CHAIR, materials.hard(rng))
    return Piece("armchair", (Part(g.joined(*body), CHAIR, cloth), legs))


def chair(rng: np.random.Generator) -> Piece:
    width, depth, seat = rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.43, 0.48)
    height, leg = rng.uniform(0.8, 1.02), rng.uniform(0.025, 0.045)
    frame = materials.hard(rng)
    x, y = width / 2 - leg / 2, depth / 2 - leg / 2
    splay = rng.uniform(0, 0.05)
    lean = rng.uniform(0.03, 0.1)
    bars = [g.beam((sx * (x + splay), y + splay, 0), (sx * x, y, seat), leg) for sx in (-1, 1)]
    for sx in (-1, 1):
        bars.append(g.beam((sx * (x + splay), -y - splay, 0), (sx * x, -y, seat), leg))
        bars.append(g.beam((sx * x, -y, seat), (sx * x, -y - lean, height), leg))
    style = int(rng.integers(4))
    low = seat + 0.18

    def rail(z: float, tall: float) -> np.ndarray:
        slant = -y - lean * (z - seat) / (height - seat)
        return g.moved(g.box((-x, -0.01, -tall / 2), (x, 0.01, tall / 2)), (0, slant, z))

    back_material = frame
    if style == 0:
        back = [rail(z, 0.05) for z in np.linspace(low, height - 0.04, int(rng.integers(2, 5)))]
    elif style == 1:
        back = [rail(height - 0.05, 0.08), rail(low - 0.08, 0.04)]
        for bx in np.linspace(-x, x, int(rng.integers(5, 8)))[1:-1]:
            back.append(g.beam((bx, -y, seat), (bx, -y - lean, height - 0.05), 0.018))
    else:
        tall = height - low
        panel = g.tilted(g.box((-x, -0.02, -tall / 2), (x, 0.02, tall / 2)), np.arctan(lean / (height - seat)))
        back = [g.moved(panel, (0, -y - lean * 0.6, (low + height) / 2))]
        back_material = materials.fabric(rng) if style == 3 else frame
    if rng.random() < 0.4:
        bars += [g.beam((sx * x, -y, seat * 0.4), (sx * x, y, seat * 0.4), leg * 0.7) for sx in (-1, 1)]
    parts = [Part(g.joined(*bars), CHAIR, materials.turned(frame)), Part(g.joined(*back), CHAIR, back_material)]
    if rng.random() < 0.5:
        parts.append(Part(_slab(width, depth, seat - 0.02, seat + 0.015), CHAIR, frame))
    else:
        parts.append(Part(_cushion(width, depth, 0.08, (0, 0, seat + 0.01)), CHAIR, materials.fabric(rng)))
    return Piece("chair", tuple(parts))


def office_chair(rng: np.random.Generator) -> Piece:
    seat, height = rng.uniform(0.43, 0.52), rng.uniform(0.9, 1.15)
    cloth, metal = materials.fabric(rng), materials.metal(rng)
    start = rng.uniform(0, 2 * np.pi)
    feet = []
    for k in range(5):
        angle = start + k * 2 * np.pi / 5
        tip = (0.3 * np.cos(angle), 0.3 * np.sin(angle))
        feet.append(g.beam((0, 0, 0.12), (*tip, 0.07), 0.04))
        feet.append(g.moved(g.ball((0.06, 0.06, 0.06), segments=10, rings=6), (*tip, 0.03)))
    feet.append(g.cylinder(0.03, 0.1, seat - 0.05, 10))
    feet.append(g.beam((0, -0.18, seat - 0.04), (0, -0.26, seat + 0.2), 0.05))
    soft = [_cushion(0.48, 0.46, 0.1, (0, 0, seat))]
    tall = height - seat - 0.12
    back = g.tilted(g.ball((0.44, 0.09, tall), 0.4, segments=20, rings=8), 0.12)
    soft.append(g.moved(back, (0, -0.26, height - tall / 2)))
    if rng.random() < 0.5:
        for side in (-1, 1):
            feet.append(g.beam((side * 0.27, -0.05, seat - 0.02), (side * 0.27, -0.05, seat + 0.2), 0.03))
            feet.append(g.box((side * 0.27 - 0.03, -0.15, seat + 0.2), (side * 0.27 + 0.03, 0.12, seat + 0.23)))
    return Piece("office chair", (Part(g.joined(*feet), CHAIR, metal), Part(g.joined(*soft), CHAIR, cloth)))


def stool(rng: np.random.Generator) -> Piece:
    radius, height = rng.uniform(0.16, 0.22), rng.uniform(0.42, 0.7)
    frame = materials.hard(rng)
    corners = [(sx * radius * 0.6, sy * radius * 0.6) for sx in (-1, 1) for sy in (-1, 1)]
    legs = g.joined(*(g.beam((1.5 * x, 1.5 * y, 0), (x, y, height), 0.03) for x, y in corners))
    seat = Part(g.cylinder(radius, height - 0.03, height + 0.01, 20), CHAIR, materials.hard(rng))
    return Piece("stool", (Part(legs, CHAIR, materials.turned(frame)), seat))


def table(rng: np.random.Generator, width: float, depth: float, height: float) -> Piece:
    """A table with four legs, a trestle, or (where it is nearly square) one foot under a round top."""
    thickness, leg = rng.uniform(0.02, 0.05), rng.uniform(0.04, 0.09)
    material = materials.hard(rng)
    under = material if rng.random() < 0.6 else materials.hard(rng)
    if abs(width - depth) < 0.15 and rng.random() < 0.6:
        radius = (width + depth) / 4
        foot = g.lathe([(0, 0), (radius * 0.55, 0), (radius * 0.5, 0.03), (0.04, 0.08), (0.04, height), (0, height)])
        plate = g.cylinder(radius, height - thickness, height, 32)
        inner = radius * 0.65
        top = Top((-inner, inner), (-inner, inner), height)
        return Piece("round table", (Part(plate, TABLE, material), Part(foot, TABLE, under)), (top,))
    bars = [_legs(width, depth, height - thickness, leg, 0.02)]
    if rng.random() < 0.6:
        low = height - thickness - rng.uniform(0.05, 0.1)
        bars.append(_slab(width - 2 * leg, depth - leg - 0.06, low, height - thickness))
    if rng.random() < 0.25 and height < 0.6:
        bars.append(_slab(width - leg, depth - leg, 0.12, 0.14))
    plate = _slab(width, depth, height - thickness, height)
    top = Top((-width / 2 + 0.03, width / 2 - 0.03), (-depth / 2 + 0.03, depth / 2 - 0.03), height)
    parts = (Part(plate, TABLE, material), Part(g.joined(*bars), TABLE, materials.turned(under)))
    return Piece("table", parts, (top,))


def dining_table(rng: np.random.Generator) -> Piece:
    width = rng.uniform(0.8, 2.0)
    return table(rng, width, min(width, rng.uniform(0.75, 1.0)), rng.uniform(0.72, 0.78))


def coffee_table(rng: np.random.Generator) -> Piece:
    width = rng.uniform(0.6, 1.3)
    return table(rng, width, min(width, rng.uniform(0.45, 0.75)), rng.uniform(0.35, 0.5))


def side_table(rng: np.random.Generator) -> Piece:
    width = rng.uniform(0.38, 0.6)
    return table(rng, width, width * rng.uniform(0.8, 1.0), rng.uniform(0.45, 0.65))


def desk(rng: np.random.Generator) -> Piece:
    """A writing desk: a top on legs, often with a block of drawers at one side."""
    width, depth, height = rng.uniform(1.0, 1.7), rng.uniform(0.55, 0.8), rng.uniform(0.71, 0.77)
    material = materials.hard(rng)
    parts = [Part(_slab(width, depth, height - 0.03, height), TABLE, material)]
    if rng.random() < 0.6:
        side = float(rng.choice([-1, 1]))
        x = side * (width / 2 - 0.22)
        block = g.box((x - 0.2, -depth / 2 + 0.03, 0.05), (x + 0.2, depth / 2 - 0.03, height - 0.03))
        fronts = g.boxes([(x, depth / 2 - 0.02, 0.17 + 0.21 * k) for k in range(3)], [(0.37, 0.03, 0.19)] * 3)
        parts += [Part(block, TABLE, material), Part(fronts, TABLE, materials.painted(rng))]
    parts.append(Part(_legs(width, depth, height - 0.03, 0.05), TABLE, materials.turned(material)))
    top = Top((-width / 2 + 0.03, width / 2 - 0.03), (-depth / 2 + 0.03, depth / 2 - 0.03), height)
    return Piece("desk", tuple(parts), (top,))
