"""A heat map as a PNG file, labels and numbers in it, with numpy alone: no package for drawing comes with calibration.

Letters are those of the usual 5 x 7 matrix of character displays, magnified.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError

UInt8 = npt.NDArray[np.uint8]

_SCALE = 2
_ADVANCE, _LETTER_HEIGHT = 6 * _SCALE, 8 * _SCALE
_ROW, _CELL, _MARGIN = 30, 92, 12
_LINE = _LETTER_HEIGHT + 2 * _SCALE
_LEGEND = "drop (+ is worse) by budget:"
_INK, _PAPER = (25, 25, 25), (255, 255, 255)
#: Colours at 0, 1/2 and 1 of a budget, and at twice the budget and more; a gain is as pale as no drop at all.
_STOPS = np.array([0.0, 0.5, 1.0, 2.0])
_SHARES = ("0", "1/2", "1", "2 x")
_COLOURS = np.array([(247, 247, 247), (253, 219, 149), (236, 112, 20), (127, 14, 18)], np.float64)
_FONT = (
    "a 2054545478|b 7f48444438|c 3844444420|d 384444487f|e 3854545418|f 087e090102|g 0c5252523e|h 7f08040478|"
    "i 00447d4000|j 2040443d00|k 7f10284400|l 00417f4000|m 7c04180478|n 7c08040478|o 3844444438|p 7c14141408|"
    "q 081414187c|r 7c08040408|s 4854545420|t 043f444020|u 3c4040207c|v 1c2040201c|w 3c4030403c|x 4428102844|"
    "y 0c5050503c|z 4464544c44|0 3e5149453e|1 00427f4000|2 4261514946|3 2141454b31|4 1814127f10|5 2745454539|"
    "6 3c4a494930|7 0171090503|8 3649494936|9 064949291e|. 0060600000|, 0050300000|- 0808080808|+ 08083e0808|"
    "( 001c224100|) 0041221c00|% 2313086462|/ 2010080402|: 0036360000|_ 4040404040|? 0201510906"
)
#: Letter -> its five columns of eight dots, the lowest bit at the top.
_LETTERS = {entry[0]: bytes.fromhex(entry[2:]) for entry in _FONT.split("|")}
_LETTERS[" "] = bytes(5)


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
    names = max(len(name) for name in rows) * _ADVANCE + 2 * _MARGIN
    head = _MARGIN + (_ROW if title else 0)
    top = head + _ROW + max(len(head) for head in heads) * _LINE + _MARGIN
    swatches = 2 * _MARGIN + len(_LEGEND) * _ADVANCE
    width = names + sum(len(panel.columns) * _CELL + 2 * _MARGIN for panel in panels)
    width = max(width, swatches + len(_SHARES) * _CELL + _MARGIN, 2 * _MARGIN + len(title) * _ADVANCE)
    legend = top + (len(rows) + 1) * _ROW
    canvas = np.full((legend + _ROW + _MARGIN, width, 3), _PAPER, np.uint8)
    write(canvas, title, _MARGIN, _MARGIN)
    for index, name in enumerate(rows):
        write(canvas, name, _MARGIN, _row_top(top, index, len(rows)) + (_ROW - _LETTER_HEIGHT) // 2)
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
        _filled(canvas, share, colour, swatches + number * _CELL, legend + (_ROW - _LETTER_HEIGHT) // 2)
    return png(canvas)


def colour_of(share: float) -> tuple[int, int, int]:
    """Return the colour of a drop that is ``share`` of its budget."""
    at = _STOPS[-1] if math.isnan(share) else min(max(share, 0.0), _STOPS[-1])
    red, green, blue = (round(float(np.interp(at, _STOPS, _COLOURS[:, channel]))) for channel in range(3))
    return red, green, blue


def write(canvas: UInt8, text: str, left: int, top: int, ink: tuple[int, int, int] = _INK) -> None:
    """Write ``text`` into an RGB picture (H, W, 3), in lower case; letters that there are none of become '?'."""
    for index, letter in enumerate(text.lower()):
        columns = np.frombuffer(_LETTERS.get(letter, _LETTERS["?"]), np.uint8)
        dots_87 = np.unpackbits(columns[:, None], axis=1, bitorder="little").T.astype(bool)
        dots = dots_87.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
        place = canvas[top : top + dots.shape[0], left + index * _ADVANCE :][:, : dots.shape[1]]
        place[dots[: place.shape[0], : place.shape[1]]] = ink


def png(image: UInt8) -> bytes:
    """Return an RGB picture (H, W, 3) as a PNG file (ISO/IEC 15948: 8 bits, true colour, no filter)."""
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line begins with its filter, 0: none
    lines[:, 1:] = image.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def save(path: Path, data: bytes) -> None:
    """Write a file in one step; raises DataError where the place cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}") from None


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
    inset = max((_CELL - 2 - len(text) * _ADVANCE) // 2, 0)
    write(canvas, text, left + inset, top + (_ROW - _LETTER_HEIGHT) // 2, _PAPER if dark else _INK)


def _row_top(top: int, index: int, count: int) -> int:
    """Return where a row begins: the last two half a row lower."""
    return top + index * _ROW + (_ROW // 2 if index >= count - 2 else 0)
