"""A heat map as a PNG file, labels and numbers in it, with numpy alone: no package for drawing comes with calibration.

Letters and the file itself are :mod:`emadeploy.contract.drawing`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emadeploy.contract.drawing import ADVANCE, INK, LETTER_HEIGHT, SCALE, png, write
from emadeploy.contract.preprocess import UInt8

_ROW, _CELL, _MARGIN = 30, 92, 12
_LINE = LETTER_HEIGHT + 2 * SCALE
_LEGEND = "drop (+ is worse) by budget:"
_PAPER = (255, 255, 255)
#: Colours at 0, 1/2 and 1 of a budget, and at twice the budget and more; a gain is as pale as no drop at all.
_STOPS = np.array([0.0, 0.5, 1.0, 2.0])
_SHARES = ("0", "1/2", "1", "2 x")
_COLOURS = np.array([(247, 247, 247), (253, 219, 149), (236, 112, 20), (127, 14, 18)], np.float64)


@dataclass(frozen=True)
class Panel:
    """A block of cells: its title, heads of columns ('task, unit, ...': a line each), drops (rows x columns), what each
    column allows.
    """

    title: str
    columns: Sequence[str]
    drops: Sequence[Sequence[float]]
    allowed: Sequence[float]


def heat_map(rows: Sequence[str], panels: Sequence[Panel], *, title: str = "") -> bytes:
    """Return a PNG of the ``panels`` side by side, with ``rows`` named at the left; the last two rows stand apart.

    A cell is coloured by its drop as a share of what is allowed, and holds the drop; one that is not finite is 'lost'.
    """
    heads = [column.split(", ") for panel in panels for column in panel.columns]
    names = max(len(name) for name in rows) * ADVANCE + 2 * _MARGIN
    head = _MARGIN + (_ROW if title else 0)
    top = head + _ROW + max(len(head) for head in heads) * _LINE + _MARGIN
    swatches = 2 * _MARGIN + len(_LEGEND) * ADVANCE
    width = names + sum(len(panel.columns) * _CELL + 2 * _MARGIN for panel in panels)
    width = max(width, swatches + len(_SHARES) * _CELL + _MARGIN, 2 * _MARGIN + len(title) * ADVANCE)
    legend = top + (len(rows) + 1) * _ROW
    canvas = np.full((legend + _ROW + _MARGIN, width, 3), _PAPER, np.uint8)
    write(canvas, title, _MARGIN, _MARGIN)
    for index, name in enumerate(rows):
        write(canvas, name, _MARGIN, _row_top(top, index, len(rows)) + (_ROW - LETTER_HEIGHT) // 2)
    left = names
    for panel in panels:
        write(canvas, panel.title, left, head)
        for number, column in enumerate(panel.columns):
            for line, text in enumerate(column.split(", ")):
                write(canvas, text, left + number * _CELL, head + _ROW + line * _LINE)
            for index, row in enumerate(panel.drops):
                _cell(
                    canvas, row[number], panel.allowed[number], left + number * _CELL, _row_top(top, index, len(rows))
                )
        left += len(panel.columns) * _CELL + 2 * _MARGIN
    write(canvas, _LEGEND, _MARGIN, legend + _MARGIN)
    for number, (share, colour) in enumerate(zip(_SHARES, _COLOURS, strict=True)):
        _filled(canvas, share, colour, swatches + number * _CELL, legend + (_ROW - LETTER_HEIGHT) // 2)
    return png(canvas)


def colour_of(share: float) -> tuple[int, int, int]:
    """Return the colour of a drop that is ``share`` of its budget."""
    at = _STOPS[-1] if math.isnan(share) else min(max(share, 0.0), _STOPS[-1])
    red, green, blue = (round(float(np.interp(at, _STOPS, _COLOURS[:, channel]))) for channel in range(3))
    return red, green, blue


def _cell(canvas: UInt8, drop: float, allowed: float, left: int, top: int) -> None:
    share = drop / allowed if allowed else math.inf if drop > 0 else 0.0
    colour = colour_of(share)
    text = "lost" if not math.isfinite(drop) else f"{drop:+.2f}" if abs(drop) < 1000 else f"{drop:+.0e}"
    _filled(canvas, text, colour, left, top)


def _filled(canvas: UInt8, text: str, colour: Sequence[float], left: int, top: int) -> None:
    """Draw a cell of one colour with ``text`` in its middle."""
    canvas[top : top + _ROW - 2, left : left + _CELL - 2] = colour
    # White on what is dark to the eye: the luma of ITU-R BT.601.
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 128
    inset = max((_CELL - 2 - len(text) * ADVANCE) // 2, 0)
    write(canvas, text, left + inset, top + (_ROW - LETTER_HEIGHT) // 2, _PAPER if dark else INK)


def _row_top(top: int, index: int, count: int) -> int:
    """Return where a row begins: the last two half a row lower."""
    return top + index * _ROW + (_ROW // 2 if index >= count - 2 else 0)
