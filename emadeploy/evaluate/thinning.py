"""Edges one pixel wide, out of maps of probabilities: what the benchmarks of edges do before they match pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from emadeploy.evaluate.tallies import Array, Float64

Mask = npt.NDArray[np.bool_]

# Standard deviation, pixels, of the smoothing before an edge's direction is taken: that of the triangle filter of
# radius 4 in Dollar and Zitnick, Fast Edge Detection Using Structured Forests, PAMI 2015.
_SIGMA = 2.0
# How much lower than its neighbours across the edge a pixel may be and still stay: there, too. It keeps plateaus, which
# are thinned afterwards.
_SLACK = 1.01
# Neighbours of a pixel as (row, column) steps, anticlockwise from the east: x1 to x8 of the paper below.
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def suppress(probability_HW: Array) -> Float64:
    """Return ``probability_HW`` with 0 where a pixel is no maximum across its edge; needs scipy.

    Non-maximum suppression: the direction across the edge is that in which the smoothed map curves most (an eigenvector
    of its Hessian), and a pixel stays if it is not lower than either neighbour at distance 1 in that direction,
    interpolated bilinearly. Unlike Dollar's toolbox, it does not weaken what is within 5 pixels of the border.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    map_HW = np.asarray(probability_HW, np.float64)
    yy, xx, xy = (gaussian_filter(map_HW, _SIGMA, order=order, mode="nearest") for order in ((2, 0), (0, 2), (1, 1)))
    # The axis of the larger eigenvalue lies at this angle from x. Where the sum of both is negative, on the crest, the
    # smaller one is the larger curvature; on the slopes at its sides it is the larger one.
    across = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2 * (xx + yy < 0)
    rows, columns = np.nonzero(map_HW)
    step = np.array([np.sin(across[rows, columns]), np.cos(across[rows, columns])])
    here, values = np.array([rows, columns], np.float64), map_HW[rows, columns] * _SLACK
    kept = np.ones(len(rows), bool)
    for side in (-1, 1):
        kept &= values >= map_coordinates(map_HW, here + side * step, order=1, mode="nearest")
    thinned_HW = np.zeros_like(map_HW)
    thinned_HW[rows[kept], columns[kept]] = map_HW[rows[kept], columns[kept]]
    return thinned_HW


def thin(mask_HW: Mask) -> Mask:
    """Return ``mask_HW`` thinned to lines one pixel wide, connected as before: MATLAB's ``bwmorph(mask, 'thin', Inf)``.

    Guo and Hall's parallel thinning as in Lam, Lee and Suen, Thinning Methodologies, PAMI 1992, page 879: two passes in
    turns, each taking away all pixels of which its conditions hold, until neither finds one.
    """
    padded = np.pad(np.asarray(mask_HW, np.uint8), 1)
    flat = padded.ravel()  # a view
    ring = [dy * padded.shape[1] + dx for dy, dx in _RING]
    places, idle = np.flatnonzero(flat), 0
    while idle < 2:
        for removable in _removable():
            code = np.zeros(len(places), np.uint8)
            for bit, step in enumerate(ring):
                code |= flat[places + step] << np.uint8(bit)
            gone = removable[code]
            idle = 0 if gone.any() else idle + 1
            flat[places[gone]] = 0
            places = places[~gone]
    return padded[1:-1, 1:-1] != 0


@cache
def _removable() -> tuple[Mask, Mask]:
    """Return, for both passes, whether a pixel goes, by the code (256,) of its neighbours: bit k is x of k + 1."""
    x = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(bool).T
    crossings = sum((~x[i] & (x[i + 1] | x[(i + 2) % 8])).astype(int) for i in (0, 2, 4, 6))
    pairs = [sum((x[i + k] | x[(i + k + 1) % 8]).astype(int) for i in (0, 2, 4, 6)) for k in (0, 1)]
    fewest = np.minimum(*pairs)
    common = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    return common & ~((x[1] | x[2] | ~x[7]) & x[0]), common & ~((x[5] | x[6] | ~x[3]) & x[4])
