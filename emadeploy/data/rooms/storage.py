"""Shelves with books, cupboards, drawers: the class `furniture`, and the books in it. Sizes in metres."""

import numpy as np

from emadeploy.data.rooms import geometry as g
from emadeploy.data.rooms import materials
from emadeploy.data.rooms.classes import BOOKS, FURNITURE
from emadeploy.data.rooms.piece import Part, Piece, Top


def book_row(
    rng: np.random.Generator, start: float, end: float, front: float, depth: float, low: float, headroom: float
) -> tuple[np.ndarray, np.ndarray]:
    """Upright books from x `start` to `end`, spines near y `front`: triangles (F, 3, 3) and book numbers (F,)."""
    thick = rng.uniform(0.018, 0.05, size=max(1, int((end - start) / 0.03)))
    edges = start + np.concatenate([[0.0], np.cumsum(thick)])
    count = max(1, int(np.searchsorted(edges, end)) - 1)
    tall = np.minimum(headroom - 0.02, rng.uniform(0.6, 0.95) * headroom * rng.uniform(0.75, 1.1, size=count))
    deep = np.minimum(depth, rng.uniform(0.6, 0.95) * depth * rng.uniform(0.85, 1.1, size=count))
    pulled = rng.uniform(0, 0.02, size=count)
    sizes = np.stack([thick[:count] - 0.001, deep, tall], axis=1)
    centres = np.stack([(edges[:count] + edges[1 : count + 1]) / 2, front - pulled - deep / 2, low + tall / 2], axis=1)
    return g.boxes(centres, sizes), np.repeat(np.arange(count), g.BOX_TRIANGLES)


def book_pile(rng: np.random.Generator) -> Piece:
    """A few books lying on each other."""
    count = int(rng.integers(1, 6))
    thick = rng.uniform(0.015, 0.045, size=count)
    low = np.concatenate([[0.0], np.cumsum(thick)[:-1]])
    stack = []
    for k in range(count):
        width, depth = rng.uniform(0.18, 0.28), rng.uniform(0.14, 0.21)
        book = g.box((-width / 2, -depth / 2, 0), (width / 2, depth / 2, thick[k]))
        stack.append(g.moved(g.turned(book, rng.normal(0, 0.2)), (0, 0, low[k])))
    items = np.repeat(np.arange(count), g.BOX_TRIANGLES)
    return Piece("book pile", (Part(g.joined(*stack), BOOKS, materials.books(rng), items),))


def standing_books(rng: np.random.Generator) -> Piece:
    """A short row of books on a table or a cupboard."""
    length = rng.uniform(0.15, 0.5)
    triangles, items = book_row(rng, -length / 2, length / 2, 0.1, 0.2, 0.0, 0.3)
    return Piece("standing books", (Part(triangles, BOOKS, materials.books(rng), items),))


def _shelf_books(
    rng: np.random.Generator, bays: list[tuple[float, float, float, float]], depth: float, front: float
) -> tuple[list[Part], list[Top]]:
    """Fills bays (x0, x1, floor, headroom) with books; the bays left open become places to put things."""
    shapes, numbers, tops, first = [], [], [], 0
    fullness = rng.uniform(0.4, 1.0)
    for x0, x1, low, headroom in bays:
        if headroom < 0.16 or rng.random() > fullness:
            tops.append(Top((x0, x1), (front - depth, front), low, headroom))
            continue
        end = x0 + (x1 - x0) * (1.0 if rng.random() < 0.5 else rng.uniform(0.35, 0.9))
        triangles, items = book_row(rng, x0, end, front - 0.02, depth - 0.03, low, min(headroom, 0.34))
        shapes.append(triangles)
        numbers.append(items + first)
        first += int(items[-1]) + 1
        if x1 - end > 0.2:
            tops.append(Top((end + 0.03, x1), (front - depth, front), low, headroom))
    if not shapes:
        return [], tops
    return [Part(g.joined(*shapes), BOOKS, materials.books(rng), np.concatenate(numbers))], tops


def bookcase(rng: np.random.Generator) -> Piece:
    width, depth, height = rng.uniform(0.6, 1.5), rng.uniform(0.25, 0.38), rng.uniform(0.8, 2.1)
    board = rng.uniform(0.018, 0.035)
    rows = max(2, round(height / rng.uniform(0.3, 0.4)))
    columns = 1 if width < 0.9 else int(rng.integers(1, 3))
    frame = materials.hard(rng)
    levels = np.linspace(0.06, height - board, rows + 1)
    posts = np.linspace(-width / 2, width / 2 - board, columns + 1)
    boards = g.boxes([(0, 0, z + board / 2) for z in levels], [(width, depth, board)] * len(levels))
    sides = g.boxes([(x + board / 2, 0, height / 2) for x in posts], [(board, depth, height)] * len(posts))
    parts = [Part(boards, FURNITURE, frame), Part(sides, FURNITURE, materials.turned(frame))]
    if rng.random() < 0.75:
        back = g.box((-width / 2, -depth / 2, 0.03), (width / 2, -depth / 2 + 0.01, height))
        parts.append(Part(back, FURNITURE, materials.turned(frame)))
    bays = [
        (posts[c] + board, posts[c + 1], levels[r] + board, levels[r + 1] - levels[r] - board)
        for r in range(rows)
        for c in range(columns)
    ]
    books, tops = _shelf_books(rng, bays, depth - 0.02, depth / 2)
    tops.append(Top((-width / 2, width / 2), (-depth / 2, depth / 2), height))
    return Piece("bookcase", (*parts, *books), tuple(tops))


def wall_shelf(rng: np.random.Generator) -> Piece:
    """One or two boards on the wall; y = 0 is the wall, z = 0 the lower board."""
    width, depth = rng.uniform(0.6, 1.4), rng.uniform(0.18, 0.28)
    count, gap = int(rng.integers(1, 3)), rng.uniform(0.28, 0.36)
    boards = [g.box((-width / 2, 0, k * gap), (width / 2, depth, k * gap + 0.025)) for k in range(count)]
    bays = [(-width / 2, width / 2, k * gap + 0.025, gap - 0.03) for k in range(count)]
    books, tops = _shelf_books(rng, bays, depth, depth)
    return Piece("wall shelf", (Part(g.joined(*boards), FURNITURE, materials.hard(rng)), *books), tuple(tops))


def _fronts(
    rng: np.random.Generator, width: float, front: float, low: float, high: float, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Doors or drawers in a grid with their handles: two triangle soups."""
    cell_w, cell_h = width / columns, (high - low) / rows
    at = [(-width / 2 + (c + 0.5) * cell_w, low + (r + 0.5) * cell_h) for c in range(columns) for r in range(rows)]
    panels = g.boxes([(x, front, z) for x, z in at], [(cell_w - 0.012, 0.02, cell_h - 0.012)] * len(at))
    tall = cell_h > cell_w
    grip = (0.015, 0.03, min(0.3, cell_h * 0.3)) if tall else (min(0.2, cell_w * 0.4), 0.03, 0.015)
    if rng.random() < 0.4:
        grip = (0.03, 0.03, 0.03)
    # Doors in pairs have their handles next to each other.
    shift = [cell_w * 0.38 * (1 if k // rows % 2 == 0 else -1) if tall else 0.0 for k in range(len(at))]
    lift = 0.0 if tall else cell_h * float(rng.choice([0.0, 0.25]))
    handles = g.boxes([(x + s, front + 0.022, z + lift) for (x, z), s in zip(at, shift, strict=True)], [grip] * len(at))
    return panels, handles


def cupboard(rng: np.random.Generator, name: str, size: tuple[float, float, float], columns: int, rows: int) -> Piece:
    """A closed body with doors or drawers: dresser, wardrobe, night stand, kitchen block; `size` is w, d, h."""
    width, depth, height = size
    plinth = rng.uniform(0.03, 0.12)
    body_material = materials.hard(rng)
    front_material = body_material if rng.random() < 0.6 else materials.hard(rng)
    body = g.joined(
        g.box((-width / 2, -depth / 2, plinth), (width / 2, depth / 2 - 0.02, height - 0.02)),
        g.box((-width / 2 + 0.03, -depth / 2 + 0.02, 0), (width / 2 - 0.03, depth / 2 - 0.06, plinth)),
    )
    overhang = rng.uniform(0, 0.02)
    plate = g.box(
        (-width / 2 - overhang, -depth / 2, height - 0.03), (width / 2 + overhang, depth / 2 + overhang, height)
    )
    panels, handles = _fronts(rng, width, depth / 2 - 0.01, plinth, height - 0.03, columns, rows)
    vertical = (height - plinth) / rows > width / columns
    parts = (
        Part(body, FURNITURE, body_material),
        Part(plate, FURNITURE, body_material if rng.random() < 0.7 else materials.hard(rng)),
        Part(panels, FURNITURE, materials.turned(front_material) if vertical else front_material),
        Part(handles, FURNITURE, materials.metal(rng) if rng.random() < 0.7 else body_material),
    )
    top = Top((-width / 2, width / 2), (-depth / 2 + 0.02, depth / 2 - 0.02), height)
    return Piece(name, parts, (top,))


def dresser(rng: np.random.Generator) -> Piece:
    size = (rng.uniform(0.7, 1.5), rng.uniform(0.4, 0.5), rng.uniform(0.7, 1.2))
    return cupboard(rng, "dresser", size, int(rng.integers(1, 3)), int(rng.integers(3, 5)))


def wardrobe(rng: np.random.Generator) -> Piece:
    size = (rng.uniform(0.8, 1.8), rng.uniform(0.5, 0.62), rng.uniform(1.8, 2.2))
    return cupboard(rng, "wardrobe", size, int(rng.integers(2, 4)), 1)


def night_stand(rng: np.random.Generator) -> Piece:
    size = (rng.uniform(0.38, 0.55), rng.uniform(0.35, 0.45), rng.uniform(0.45, 0.62))
    return cupboard(rng, "night stand", size, 1, int(rng.integers(1, 4)))


def tv_stand(rng: np.random.Generator) -> Piece:
    size = (rng.uniform(1.1, 1.8), rng.uniform(0.38, 0.48), rng.uniform(0.38, 0.6))
    return cupboard(rng, "tv stand", size, int(rng.integers(2, 4)), int(rng.integers(1, 3)))


def counter(rng: np.random.Generator) -> Piece:
    columns = int(rng.integers(2, 5))
    size = (columns * rng.uniform(0.45, 0.6), 0.6, rng.uniform(0.86, 0.94))
    return cupboard(rng, "counter", size, columns, int(rng.integers(1, 3)))
