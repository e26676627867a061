"""Procedural patterns: from a surface point to its colour.

Each pattern is a function of `Points`, n points on surfaces of one material, and returns (n, 3) float32 linear RGB.
Detail finer than the footprint of a pixel fades into its mean, so that far floors do not flicker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emadeploy.data.rooms.materials import Material


@dataclass(frozen=True)
class Points:
    """u, v: texture coordinates in metres (n,); for `outdoors` azimuth and elevation in radians.
    item: a number that tells like things apart, such as the books of a row (n,) int.
    footprint: metres on the surface that one pixel covers (n,)."""

    u: np.ndarray
    v: np.ndarray
    item: np.ndarray
    footprint: np.ndarray


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(20240111)).random((256, 256), dtype=np.float32)


def _hash(i: np.ndarray, j: np.ndarray | int, seed: int) -> np.ndarray:
    """A number in [0, 1) for each lattice cell."""
    return _table()[(i + seed % 251) & 255, (j + seed // 251) & 255]


def _cell(x: np.ndarray) -> np.ndarray:
    return np.floor(x).astype(np.int32)


def _noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Smooth value noise in [0, 1), one feature per unit."""
    i, j = _cell(x), _cell(y)
    fx, fy = (x - i).astype(np.float32), (y - j).astype(np.float32)
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    table = _table()
    i0, j0 = (i + seed % 251) & 255, (j + seed // 251) & 255
    i1, j1 = (i0 + 1) & 255, (j0 + 1) & 255
    low = table[i0, j0] * (1 - fx) + table[i1, j0] * fx
    high = table[i0, j1] * (1 - fx) + table[i1, j1] * fx
    return low * (1 - fy) + high * fy


def _fade(period: float, footprint: np.ndarray) -> np.ndarray:
    """1 where a pattern of this period is resolved, 0 where a pixel covers about a period."""
    return np.clip(1.5 - 1.5 * footprint / period, 0, 1)


def _line(distance: np.ndarray, width: float, footprint: np.ndarray) -> np.ndarray:
    """How much of a pixel a line covers, from the distance to the line's middle."""
    reach = np.maximum(footprint, 1e-4)
    return np.clip((width / 2 - distance) / reach + 0.5, 0, 1) * np.minimum(1, width / reach)


def _band(x: np.ndarray, share: float, footprint: np.ndarray, period: float) -> np.ndarray:
    """A square wave of period 1 in x, 1 for `share` of it, softened to the footprint (metres, `period` metres)."""
    phase = np.abs(x - np.floor(x) - 0.5)
    edge = np.clip((share / 2 - phase) * period / np.maximum(footprint, 1e-4) + 0.5, 0, 1)
    fade = _fade(period, footprint)
    return edge * fade + share * (1 - fade)


def _mix(a: np.ndarray | tuple, b: np.ndarray | tuple, t: np.ndarray) -> np.ndarray:
    first, second = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    return first + (second - first) * t[:, None].astype(np.float32)


def _shaded(material: Material, tone: np.ndarray) -> np.ndarray:
    return np.asarray(material.colours[0], dtype=np.float32) * tone[:, None].astype(np.float32)


def plain(m: Material, p: Points) -> np.ndarray:
    return _mix(m.colours[0], m.colours[1], _noise(p.u / m.scale, p.v / m.scale, m.seed))


def plaster(m: Material, p: Points) -> np.ndarray:
    stains = _noise(p.u * 1.3, p.v * 1.3, m.seed)
    grain = (_noise(p.u * 70, p.v * 70, m.seed + 7) - 0.5) * _fade(1 / 70, p.footprint)
    return _shaded(m, 0.94 + 0.06 * stains + 0.08 * grain)


def wood(m: Material, p: Points) -> np.ndarray:
    warp = _noise(p.u * 1.5, p.v * 6, m.seed)
    rings = _noise(p.u * 1.2, p.v / m.scale * 12 + 5 * warp, m.seed + 3)
    fine = (_noise(p.u * 6, p.v * 260, m.seed + 5) - 0.5) * _fade(1 / 130, p.footprint)
    fade = _fade(m.scale / 6, p.footprint)
    return _mix(m.colours[0], m.colours[1], np.clip(0.5 + (rings - 0.5) * fade + 0.35 * fine, 0, 1))


def planks(m: Material, p: Points) -> np.ndarray:
    row = _cell(p.v / m.scale)
    length = m.scale * 9
    along = p.u / length + _hash(row, 17, m.seed)
    board = _cell(along)
    tone = 0.72 + 0.4 * _hash(row, board, m.seed + 11)
    # Every board is cut from another place of the tree.
    grain = _noise(p.u * 2.5 + 31 * tone, p.v / m.scale * 7 + 53 * tone, m.seed) - 0.5
    seam = np.abs(p.v / m.scale - row - 0.5) * m.scale
    end = np.abs(along - board - 0.5) * length
    gaps = _line(m.scale / 2 - seam, 0.006, p.footprint) + _line(length / 2 - end, 0.006, p.footprint)
    tone = tone * (1 + 0.35 * grain * _fade(m.scale / 4, p.footprint))
    return _mix(_shaded(m, tone), np.asarray(m.colours[1]) * 0.5, np.clip(gaps, 0, 1) * 0.8)


def _grid(m: Material, p: Points, width: float, height: float, shift: float, grout: float) -> np.ndarray:
    row = _cell(p.v / height)
    x = p.u / width + shift * (row & 1)
    column = _cell(x)
    tone = 0.85 + 0.22 * _hash(column, row, m.seed) + 0.1 * (_noise(p.u * 9, p.v * 9, m.seed) - 0.5)
    to_side = (0.5 - np.abs(x - column - 0.5)) * width
    to_top = (0.5 - np.abs(p.v / height - row - 0.5)) * height
    joint = _line(np.minimum(to_side, to_top), grout, p.footprint)
    return _mix(_shaded(m, tone), m.colours[1], joint)


def tiles(m: Material, p: Points) -> np.ndarray:
    return _grid(m, p, m.scale, m.scale, 0.0, 0.008)


def bricks(m: Material, p: Points) -> np.ndarray:
    return _grid(m, p, m.scale, m.scale / 3, 0.5, 0.014)


def checker(m: Material, p: Points) -> np.ndarray:
    odd = (_cell(p.u / m.scale) + _cell(p.v / m.scale)) & 1
    stains = 0.9 + 0.2 * _noise(p.u * 7, p.v * 7, m.seed)
    return _mix(m.colours[0], m.colours[1], odd) * stains[:, None]


def carpet(m: Material, p: Points) -> np.ndarray:
    tufts = (_noise(p.u * 110, p.v * 110, m.seed) - 0.5) * _fade(0.018, p.footprint)
    clumps = (_noise(p.u / m.scale, p.v / m.scale, m.seed + 1) - 0.5) * _fade(m.scale, p.footprint)
    worn = _noise(p.u * 1.7, p.v * 1.7, m.seed + 2)
    return _mix(m.colours[0], m.colours[1], np.clip(0.3 + 0.5 * tufts + 0.4 * clumps + 0.25 * worn, 0, 1))


def stripes(m: Material, p: Points) -> np.ndarray:
    share = 0.3 + 0.4 * (m.seed % 97) / 97
    return _mix(m.colours[0], m.colours[1], _band(p.u / m.scale, share, p.footprint, m.scale))


def plaid(m: Material, p: Points) -> np.ndarray:
    across = _band(p.u / m.scale, 0.45, p.footprint, m.scale)
    down = _band(p.v / m.scale, 0.45, p.footprint, m.scale)
    return _mix(m.colours[0], m.colours[1], 0.5 * (across + down))


def dots(m: Material, p: Points) -> np.ndarray:
    row = _cell(p.v / m.scale)
    x = p.u / m.scale + 0.5 * (row & 1)
    away = np.hypot(x - _cell(x) - 0.5, p.v / m.scale - row - 0.5) * m.scale
    return _mix(m.colours[0], m.colours[1], _line(away, m.scale * 0.5, p.footprint))


def damask(m: Material, p: Points) -> np.ndarray:
    u, v = p.u * (2 * np.pi / m.scale), p.v * (2 * np.pi / (1.4 * m.scale))
    motif = (
        np.sin(u) * np.cos(v) + 0.6 * np.sin(2 * u + 1.3) * np.sin(2 * v) + 0.3 * np.cos(3 * u) * np.cos(3 * v + 0.5)
    )
    fade = _fade(m.scale / 2, p.footprint)
    return _mix(m.colours[0], m.colours[1], 0.4 + (np.clip(motif * 3 + 0.5, 0, 1) - 0.4) * fade)


def weave(m: Material, p: Points) -> np.ndarray:
    threads = np.sin(p.u * 900) * np.sin(p.v * 900) * _fade(0.007, p.footprint)
    mottle = _noise(p.u * 45, p.v * 45, m.seed) - 0.5
    folds = _noise(p.u * 2.2, p.v * 2.2, m.seed + 9) - 0.5
    return _shaded(m, 0.95 + 0.1 * threads + 0.16 * mottle * _fade(0.02, p.footprint) + 0.14 * folds)


def leather(m: Material, p: Points) -> np.ndarray:
    cells = np.abs(_noise(p.u * 60, p.v * 60, m.seed) - 0.5) * _fade(1 / 60, p.footprint)
    return _shaded(m, 0.85 + 0.3 * cells + 0.12 * _noise(p.u * 5, p.v * 5, m.seed + 1))


def marble(m: Material, p: Points) -> np.ndarray:
    u, v = p.u / m.scale, p.v / m.scale
    warp = _noise(u * 2, v * 2, m.seed)
    veins = 1 - np.abs(2 * _noise(u + 2 * warp, v - 1.5 * warp, m.seed + 1) - 1)
    return _mix(m.colours[0], m.colours[1], np.clip(veins**8, 0, 1) * 0.7 + 0.15 * warp)


def books(m: Material, p: Points) -> np.ndarray:
    palette = np.asarray(m.colours, dtype=np.float32)
    base = (
        palette[(_hash(p.item, 3, m.seed) * len(palette)).astype(np.int32)]
        * (0.6 + 0.6 * _hash(p.item, 5, m.seed))[:, None]
    )
    trim = palette[(_hash(p.item, 7, m.seed) * len(palette)).astype(np.int32)]
    height = p.v / 0.06 + 7 * _hash(p.item, 9, m.seed)
    wide = _hash(p.item, 11, m.seed) > 0.55
    return _mix(base, trim, _band(height / 2, 0.3, p.footprint, 0.12) * wide)


def _unit(m: Material, p: Points) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in [0, 1] over the material's extent, v upward."""
    return p.u / m.extent[0] + 0.5, p.v / m.extent[1] + 0.5


def landscape(m: Material, p: Points) -> np.ndarray:
    x, y = _unit(m, p)
    sky, haze, *hills = (np.asarray(c, dtype=np.float32) for c in m.colours)
    result = _mix(haze, sky, np.clip(y * 1.6 - 0.6, 0, 1))
    for layer, tone in enumerate(hills):
        ridge = 0.62 - 0.2 * layer + 0.28 * (_noise(x * (2 + 2 * layer), np.full_like(x, layer), m.seed) - 0.5)
        ground = _noise(x * 9, y * 14, m.seed + layer)
        result = np.where((y < ridge)[:, None], tone * (0.6 + 0.6 * ground)[:, None], result)
    return result.astype(np.float32)


def blocks(m: Material, p: Points) -> np.ndarray:
    x, y = _unit(m, p)
    n = 2 + m.seed % 3
    column = _cell(x * n + 0.35 * (_hash(_cell(y * n), 5, m.seed) - 0.5))
    row = _cell(y * n + 0.5 * (_hash(column, 8, m.seed) - 0.5))
    palette = np.asarray(m.colours, dtype=np.float32)
    return palette[(_hash(column, row, m.seed + 2) * len(palette)).astype(np.int32)]


def blobs(m: Material, p: Points) -> np.ndarray:
    x, y = _unit(m, p)
    palette = np.asarray(m.colours, dtype=np.float32)
    result = np.broadcast_to(palette[0], (len(x), 3)) * (0.7 + 0.4 * y)[:, None]
    spots = _table()[m.seed % 256, :16].reshape(4, 4)
    for k, (cx, cy, rx, ry) in enumerate(spots):
        inside = np.hypot((x - 0.2 - 0.6 * cx) / (0.12 + 0.3 * rx), (y - 0.15 - 0.6 * cy) / (0.12 + 0.3 * ry)) < 1
        result = np.where(inside[:, None], palette[1 + k], result)
    return result.astype(np.float32)


def print_(m: Material, p: Points) -> np.ndarray:
    x, y = _unit(m, p)
    line = _cell(y * 18)
    text = (x > 0.12) & (x < 0.5 + 0.38 * _hash(line, 2, m.seed)) & (line & 1 == 0) & (y < 0.55) & (y > 0.08)
    photo = (y > 0.62) & (y < 0.92) & (x > 0.12) & (x < 0.88)
    result = np.broadcast_to(np.float32(0.8), (len(x), 3))
    result = np.where(text[:, None], np.asarray(m.colours[0], dtype=np.float32) * 0.4, result)
    shade = _noise(x * 6, y * 6, m.seed)
    return np.where(photo[:, None], _mix(m.colours[1], m.colours[2], shade), result).astype(np.float32)


def screen(m: Material, p: Points) -> np.ndarray:
    x, y = _unit(m, p)
    tilt = (m.seed % 100) / 100 - 0.5
    sheen = np.clip(0.5 - np.abs(x + tilt * y - 0.4 - 0.3 * tilt) * 2.5, 0, 1)
    return _mix(m.colours[0], m.colours[1], 0.25 * sheen * np.clip(y, 0, 1))


def outdoors(m: Material, p: Points) -> np.ndarray:
    """Sky, a skyline and trees, by the direction of the ray: the same view from all windows of a wall."""
    azimuth, elevation = p.u, p.v
    sky, haze, near, far, leaves = (np.asarray(c, dtype=np.float32) for c in m.colours)
    cloud = _noise(azimuth * 5, elevation * 11, m.seed)
    result = _mix(_mix(haze, sky, np.clip(elevation * 2.2, 0, 1)), haze, 0.6 * np.clip(cloud * 2 - 0.9, 0, 1))
    for layer, tone in enumerate((far, near)):
        width = m.scale * (1 + 0.7 * layer)
        house = _cell(azimuth / width)
        roof = 0.16 - 0.12 * layer + 0.22 * (_hash(house, layer, m.seed) - 0.4)
        panes = (_cell(azimuth / width * 9) & 1) & (_cell(elevation * 45) & 1)
        facade = tone * (0.45 + 0.3 * _hash(house, 4 + layer, m.seed) - 0.12 * panes)[:, None]
        result = np.where((elevation < roof)[:, None], facade, result)
    tall = (m.seed % 53) / 53 * 0.35 - 0.28
    crown = tall + 0.3 * _noise(azimuth * 4, azimuth * 0, m.seed + 1)
    crown += 0.06 * _noise(azimuth * 30, elevation * 30, m.seed)
    clumps, twigs = _noise(azimuth * 28, elevation * 36, m.seed + 2), _noise(azimuth * 110, elevation * 130, m.seed + 3)
    tree = leaves * (0.15 + 0.8 * clumps * (0.4 + twigs) + np.clip(elevation - crown + 0.25, 0, 0.35))[:, None]
    return np.where((elevation < crown)[:, None], tree, result).astype(np.float32)


PATTERNS: dict[str, Callable[[Material, Points], np.ndarray]] = {
    "plain": plain,
    "plaster": plaster,
    "wood": wood,
    "planks": planks,
    "tiles": tiles,
    "bricks": bricks,
    "checker": checker,
    "carpet": carpet,
    "stripes": stripes,
    "plaid": plaid,
    "dots": dots,
    "damask": damask,
    "weave": weave,
    "leather": leather,
    "marble": marble,
    "books": books,
    "landscape": landscape,
    "blocks": blocks,
    "blobs": blobs,
    "print": print_,
    "screen": screen,
    "outdoors": outdoors,
}
