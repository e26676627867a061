"""Letters in a picture, and pictures as PNG files, with numpy alone: no package for drawing is needed for them.

Letters are those of the usual 5 x 7 matrix of character displays, magnified.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.tasks import Rgb

#: Pixels of a dot of a letter; from one letter to the next; from the top of a line to its bottom.
SCALE = 2
ADVANCE, LETTER_HEIGHT = 6 * SCALE, 8 * SCALE
INK: Rgb = (25, 25, 25)
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


def write(canvas: UInt8, text: str, left: int, top: int, ink: Rgb = INK) -> None:
    """Write ``text`` into an RGB picture (H, W, 3), in lower case; letters that there are none of become '?'."""
    for index, letter in enumerate(text.lower()):
        columns = np.frombuffer(_LETTERS.get(letter, _LETTERS["?"]), np.uint8)
        dots_87 = np.unpackbits(columns[:, None], axis=1, bitorder="little").T.astype(bool)
        dots = dots_87.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        place = canvas[top : top + dots.shape[0], left + index * ADVANCE :][:, : dots.shape[1]]
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
