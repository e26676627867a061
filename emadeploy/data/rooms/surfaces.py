"""Which pixels lie on one surface, and what follows from it: outlines, and light that is computed for some pixels only
and spread to their neighbours."""

from collections.abc import Callable
from typing import Any

import numpy as np

from emadeploy.data.rooms.raycast import Hits

# (flat pixel indices (n,), phase 0 to 3 (n,)) -> values (n, C)
Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Whatever picks pixels out of an (H, W) map.
Pick = Any

_ALL = slice(None)
_RIGHT = ((_ALL, slice(None, -1)), (_ALL, slice(1, None)))
_BELOW = ((slice(None, -1), _ALL), (slice(1, None), _ALL))
NEIGHBOURS: tuple[tuple[Pick, Pick], ...] = (_RIGHT, _BELOW)


class Surfaces:
    """The part, normal and plane (its distance to the origin) that each pixel shows, as maps of one shape."""

    def __init__(self, hits: Hits, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.part = hits.part.reshape(shape).astype(np.int32)
        self.normal = hits.normal.reshape(*shape, 3).astype(np.float32)
        self.plane = np.einsum("nc,nc->n", hits.point, hits.normal).reshape(shape).astype(np.float32)

    def match(self, here: Pick, other: "Surfaces", there: Pick) -> np.ndarray:
        """Whether the pixels `here` and the pixels `there` of another map lie on one (maybe gently bent) surface."""
        close = np.abs(self.plane[here] - other.plane[there]) < 0.05
        close &= self.part[here] == other.part[there]
        return close & (np.einsum("...c,...c->...", self.normal[here], other.normal[there]) > 0.9)

    def outlines(self) -> np.ndarray:
        """Bool map: pixels with another surface beside, above or below them."""
        result = np.zeros(self.shape, dtype=bool)
        for a, b in NEIGHBOURS:
            other = ~self.match(a, self, b)
            result[a] |= other
            result[b] |= other
        return result

    def _every(self, rows: np.ndarray, columns: np.ndarray) -> "Surfaces":
        picked = object.__new__(Surfaces)
        picked.shape = (len(rows), len(columns))
        # Rows first, then columns: much faster than one two-dimensional pick.
        picked.part, picked.normal, picked.plane = (a[rows][:, columns] for a in (self.part, self.normal, self.plane))
        return picked


def _averaged(surfaces: Surfaces, values: np.ndarray) -> np.ndarray:
    """Each value of an (h, w, C) map with those to its right, below and diagonal, where they are on its surface.

    Such a square of four holds every phase once.
    """
    total, weight = values.copy(), np.ones(surfaces.shape, dtype=np.float32)
    first, rest = slice(None, -1), slice(1, None)
    for here, there in (((_ALL, first), (_ALL, rest)), ((first, _ALL), (rest, _ALL)), ((first, first), (rest, rest))):
        alike = surfaces.match(here, surfaces, there).astype(np.float32)
        weight[here] += alike
        total[here] += alike[..., None] * values[there]
    return total / weight[..., None]


def _linear(count: int, step: int, chosen: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two coarse neighbours of every fine row, each as (indices, shares)."""
    position = np.clip((np.arange(count) - step // 2) / step, 0, chosen - 1)
    low = np.minimum(position.astype(np.int64), max(chosen - 2, 0))
    share = (position - low).astype(np.float32)
    return [(low, 1 - share), (np.minimum(low + 1, chosen - 1), share)]


def spread(surfaces: Surfaces, step: int, compute: Compute) -> np.ndarray:
    """(H, W, C) float32: `compute` on every `step`-th pixel, interpolated along surfaces.

    Pixels without a computed neighbour on their own surface (chair legs, outlines) are computed themselves.
    """
    height, width = surfaces.shape
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    coarse_surfaces = surfaces if step == 1 else surfaces._every(rows, columns)
    pixel = (rows[:, None] * width + columns).ravel()
    phase = (np.arange(len(rows))[:, None] % 2 * 2 + np.arange(len(columns)) % 2).ravel()
    coarse = _averaged(coarse_surfaces, compute(pixel, phase).reshape(*coarse_surfaces.shape, -1))
    if step == 1:
        return coarse
    total = np.zeros((height, width, coarse.shape[-1]), dtype=np.float32)
    weight = np.zeros((height, width), dtype=np.float32)
    for r, row_share in _linear(height, step, len(rows)):
        for c, column_share in _linear(width, step, len(columns)):
            alike = surfaces.match((_ALL, _ALL), coarse_surfaces._every(r, c), (_ALL, _ALL))
            # The small constant lets a far neighbour count where it is the only one on the surface.
            w = alike * (row_share[:, None] * column_share + np.float32(1e-3))
            weight += w
            total += w[..., None] * coarse[r][:, c]
    total /= np.maximum(weight, 1e-6)[..., None]
    alone = np.flatnonzero(weight == 0)
    total.reshape(height * width, -1)[alone] = compute(alone, (alone // width % 2) * 2 + alone % width % 2)
    return total
