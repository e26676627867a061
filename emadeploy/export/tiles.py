"""The gather of CTAL with a quarter of the multiplications: correlation in tiles, after Toom, Cook and Winograd.

Shape suffixes: S, T tasks, C channels, H x W the map, R = S * C and E = T * C rows, K = 9 offsets;
L an axis of the map (H or W), J its tiles, P = 6 points.

Written out, the gather multiplies every value with its nine neighbours' features. Along one axis, for a tile of 4
values v and the 6 features f around them, the 3 sums ``g[d] = sum_j v[j] f[j+d]`` take 12 multiplications. They are
the product of two polynomials, transposed, and polynomials can be multiplied at points: evaluate, multiply,
interpolate.

    g = R^T [(A v) * (B f)]            A (6 x 4), B (6 x 6), R (6 x 3)            6 multiplications

On two axes that makes 36 instead of 144. Evaluation is linear, so one banded matrix does it for all tiles of an axis.
The sum over all pixels becomes a sum over tiles, that is 36 products (R x tiles) (tiles x E), and a single
interpolation follows it.

The points 0, 1, -1, 2, -2 and infinity cost float32 little precision (tests measure it). Where numbers are rounded to
int8 or float16 they would magnify the rounding: there, use `pixel_major`.

Source: S. Winograd, Arithmetic Complexity of Computations, SIAM 1980, chapters IV and V.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from emadeploy.export.attention import OFFSETS, Product

Float64 = npt.NDArray[np.float64]

TILE = 4
"""Values of a tile along an axis. The map's extents are multiples of it: they are those of an image, 32 k, by 4."""
TAPS = 3
POINTS = TILE + TAPS - 1
_FINITE_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)


def evaluation(coefficients: int) -> Float64:
    """Return the matrix (P, coefficients) that evaluates a polynomial at the six points, the last being infinity."""
    powers = np.vander(_FINITE_POINTS, coefficients, increasing=True)
    leading = np.eye(coefficients)[-1:]
    return np.vstack([powers, leading])


def axis_evaluation(extent: int) -> tuple[Float64, Float64]:
    """Return the matrices (P * J, L) that evaluate all tiles of an axis: its values, and the features around them.

    Row ``p * J + j`` is point p of tile j. Features outside the map are zero and have no column.
    """
    tiles = extent // TILE
    value_PJL = np.zeros((POINTS, tiles, extent))
    feature_PJL = np.zeros((POINTS, tiles, extent))
    # Transposed, the interpolation of a product becomes the evaluation of one factor: B is that, A and R are theirs.
    around_PP = np.linalg.inv(evaluation(POINTS)).T
    for tile in range(tiles):
        first = tile * TILE
        value_PJL[:, tile, first : first + TILE] = evaluation(TILE)
        for position in range(POINTS):
            column = first + position - 1
            if 0 <= column < extent:
                feature_PJL[:, tile, column] = around_PP[:, position]
    return value_PJL.reshape(-1, extent), feature_PJL.reshape(-1, extent)


class Evaluate(nn.Module):
    """Evaluate every tile of maps (S, C, H, W) at the points of both axes: (P * P, S * C, tiles)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Float64, columns: Float64) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("columns", torch.from_numpy(columns.T.copy()))
        self.along_rows, self.along_columns = Product(), Product()

    def forward(self, map_SCHW: Tensor) -> Tensor:
        H, W = map_SCHW.shape[-2:]
        map_RHW = map_SCHW.flatten(0, 1)
        points: Tensor = self.along_rows(self.rows, self.along_columns(map_RHW, self.columns))
        points_RPJPJ = points.reshape(-1, POINTS, H // TILE, POINTS, W // TILE)
        return points_RPJPJ.permute(1, 3, 0, 2, 4).reshape(POINTS**2, -1, (H // TILE) * (W // TILE))


class TileGather(nn.Module):
    """The sums over all pixels: values (S, C, H, W), unit features (T, C, H, W) -> K matrices (R, E).

    ``G_d[r, e] = sum_y value[r, y] * unit[e, y + d]``, features outside the map being zero; for maps of ``size``.
    """

    interpolation: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        (value_rows, unit_rows), (value_columns, unit_columns) = (axis_evaluation(extent) for extent in size)
        self.value = Evaluate(value_rows, value_columns)
        self.unit = Evaluate(unit_rows, unit_columns)
        self.product, self.interpolate = Product(), Product()
        both_axes = np.kron(evaluation(TAPS), evaluation(TAPS)).T  # (K, P * P)
        self.register_buffer("interpolation", torch.from_numpy(both_axes.copy()))

    def forward(self, value_SCHW: Tensor, unit_TCHW: Tensor) -> list[Tensor]:
        S, C = value_SCHW.shape[:2]
        R, E = S * C, unit_TCHW.shape[0] * C
        at_points = self.product(self.value(value_SCHW), self.unit(unit_TCHW).transpose(1, 2))
        gathered = self.interpolate(self.interpolation, at_points.reshape(POINTS**2, R * E))
        return [gathered[index].reshape(R, E) for index in range(len(OFFSETS))]
