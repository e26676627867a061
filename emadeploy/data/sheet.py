"""A contact sheet: a row for each of some frames, the image and its truths in colour, one column per task.

Black is where nothing is known; a truth that a frame has none of is an empty field with a line through it. Below stand
the colours of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emadeploy.contract.colour import colourise
from emadeploy.contract.drawing import ADVANCE, LETTER_HEIGHT, png, write
from emadeploy.contract.preprocess import UInt8, resize_bilinear, resize_nearest
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.sample import IGNORE, Dataset, Sample

#: Rows of a sheet, and the width of a picture in it, pixels.
ROWS = 8
WIDTH = 256
_GAP = 6
_LINE = LETTER_HEIGHT + _GAP
_EMPTY = 225


class Sheet:
    """Gathers frames spread evenly over a data set, as `check` shows them, and draws them."""

    def __init__(self, data: Dataset, rows: int = ROWS) -> None:
        self._specs = data.specs
        # A frame that cannot be read leaves its place to the next that can.
        self._step = max(len(data) / rows, 1.0)
        self._rows = rows
        self._seen = 0
        self._kept: list[Sample] = []

    def look(self, sample: Sample) -> None:
        """Keep ``sample`` if it is one of those to be shown."""
        if self._seen >= len(self._kept) * self._step and len(self._kept) < self._rows:
            self._kept.append(sample)
        self._seen += 1

    def png(self) -> bytes:
        """Return the sheet as a PNG file; without a frame it is the heads of the columns alone."""
        heads = ["image", *(spec.name for spec in self._specs)]
        width = _GAP + len(heads) * (WIDTH + _GAP)
        sheet = [_strip(width, heads)]
        for sample in self._kept:
            sheet.append(_row(sample, self._specs))
            sheet.append(_strip(width, [sample.name[-(width // ADVANCE) + 1 :]]))
        for spec in self._specs:
            sheet += _legend(spec, width)
        return png(np.vstack(sheet))


def _row(sample: Sample, specs: Sequence[TaskSpec]) -> UInt8:
    height = max(1, round(sample.image.shape[0] * WIDTH / sample.image.shape[1]))
    size = (height, WIDTH)
    image_CHW = resize_bilinear(np.moveaxis(sample.image, 2, 0), size)
    pictures = [np.moveaxis(np.rint(image_CHW).astype(np.uint8), 0, 2)]
    for spec in specs:
        truth = sample.truth.get(spec.name)
        if truth is None:
            pictures.append(_absent(size))
            continue
        picture = colourise(truth, spec)
        if spec.kind in ("edge", "saliency"):
            picture[truth == IGNORE] = 0
        pictures.append(resize_nearest(picture, size))
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.hstack([gap, *(part for picture in pictures for part in (picture, gap))])


def _absent(size: tuple[int, int]) -> UInt8:
    picture = np.full((*size, 3), _EMPTY, np.uint8)
    columns = np.arange(size[1])
    picture[(columns * size[0] // size[1]), columns] = 120
    return picture


def _legend(spec: TaskSpec, width: int) -> list[UInt8]:
    """Return strips that name the classes of a task, if it has any, beside their colours."""
    if not spec.class_names:
        return []
    strips = [_strip(width, [f"{spec.name}:"])]
    left = _GAP + (len(spec.name) + 2) * ADVANCE
    for name, colour in zip(spec.class_names, spec.palette, strict=True):
        needed = LETTER_HEIGHT + _GAP + (len(name) + 2) * ADVANCE
        if left + needed > width and left > _GAP:
            strips.append(_strip(width, []))
            left = _GAP
        strips[-1][_GAP // 2 :, left : left + LETTER_HEIGHT][:LETTER_HEIGHT] = colour
        write(strips[-1], name, left + LETTER_HEIGHT + _GAP, _GAP // 2)
        left += needed
    return strips


def _strip(width: int, texts: Sequence[str]) -> UInt8:
    strip = np.full((_LINE, width, 3), 255, np.uint8)
    for index, text in enumerate(texts):
        write(strip, text, _GAP + index * (WIDTH + _GAP), _GAP // 2)
    return strip
