"""A contact picture: the frame, what A and B say of it, and how far they differ, side by side with captions.

frame     A              B              relative difference: mean 1.3 %
[image]   [its map]      [its map]      [black: the same, over red and yellow to white]
          0.7 to 4.1 m   0.7 to 4.1 m   [scale] 0 to 6.2 % and more
[colour and name of each class that occurs]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import BackendMissing
from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import Rgb, spread_palette
from emadeploy.evaluate.compare import ComparedFrame
from emadeploy.evaluate.tallies import Float64

LABELS = ("semseg", "human_parts")
#: Width of a panel, pixels: smaller frames are enlarged to the first, larger ones reduced to the second.
_WIDTHS = 360, 640
_LINE = 22
_PAD = 6
_FONT_SCALE = 0.42
_BAR_WIDTH = 96
_INK: Rgb = (235, 235, 235)
_PAPER: Rgb = (24, 24, 24)


@dataclass(frozen=True)
class Measure:
    """What the difference of a kind of task is called, its ``unit``, and the ``factor`` from the map to that unit."""

    what: str
    unit: str
    factor: float

    def text(self, value: float) -> str:
        """Return a value of the difference map in the unit: '1.3 %'."""
        return f"{self.factor * value:.3g} {self.unit}".strip()


_PROBABILITY = Measure("difference of probabilities", "", 1)
_LABEL = Measure("pixels of another class", "%", 100)
MEASURES = {
    "semseg": _LABEL,
    "human_parts": _LABEL,
    "depth": Measure("relative difference", "%", 100),
    "normals": Measure("angle between", "deg", 1),
    "edge": _PROBABILITY,
    "saliency": _PROBABILITY,
}


def opencv() -> ModuleType:
    """Return the module cv2; raises BackendMissing where it is not installed."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise BackendMissing.of("writing pictures", "opencv", "robotics") from None
    module: ModuleType = cv2
    return module


def contact(frame: ComparedFrame, task: TaskSpec, names: tuple[Path, Path]) -> UInt8:
    """Return the contact picture of one task on one frame, uint8 (height, width, 3) RGB."""
    a, b, difference_HW = frame.a[task.name], frame.b[task.name], frame.differences[task.name]
    span, note = None, ""
    if task.kind == "depth":
        # One range for both, so that a colour means the same distance in both.
        valid = b[b > 0]
        near, far = np.percentile(valid, (2, 98)) if valid.size else (0.0, 1.0)
        span, note = (float(near), float(far)), f"{near:.3g} to {far:.3g} {task.unit}, blue to red"
    elif task.kind == "normals":
        note = "red right, green up, blue to the camera"
    measure, high = MEASURES[task.kind], scale_of(difference_HW, task)
    scale = "white: another class" if task.kind in LABELS else f"0 to {measure.text(high)} and more"
    mean = measure.text(float(difference_HW.mean()))
    smooth = task.kind not in LABELS
    panels = [
        _panel(frame.sample.image, f"frame {frame.sample.name}", ""),
        _panel(colourise(a, task, span), f"A: {names[0]}", note, smooth=smooth),
        _panel(colourise(b, task, span), f"B: {names[1]}", note, smooth=smooth),
        _panel(
            heat(difference_HW, high),
            f"{measure.what}: {'mean ' if smooth else ''}{mean}",
            scale,
            bar=smooth,
            smooth=smooth,
        ),
    ]
    sheet = np.hstack(panels)
    if task.kind in LABELS:
        present = sorted({*np.unique(a).tolist(), *np.unique(b).tolist()})
        sheet = np.vstack([sheet, _legend(sheet.shape[1], task, present)])
    return sheet


def scale_of(difference_HW: Float64, task: TaskSpec) -> float:
    """Return the difference that is drawn white: 1 for labels, else the 99th percentile; if that is 0, the largest."""
    if task.kind in LABELS:
        return 1.0
    return float(np.quantile(difference_HW, 0.99) or difference_HW.max())


def heat(difference_HW: npt.NDArray[np.float64], high: float) -> UInt8:
    """Return the difference as colours (H, W, 3): black at 0, over red and yellow to white at ``high`` and more."""
    share_HW = np.clip(difference_HW / high, 0, 1) if high > 0 else np.zeros_like(difference_HW)
    ramps = 3 * share_HW[..., None] - np.array([0, 1, 2])
    picture: UInt8 = (255 * np.clip(ramps, 0, 1)).astype(np.uint8)
    return picture


def _panel(image: UInt8, caption: str, note: str, *, bar: bool = False, smooth: bool = True) -> UInt8:
    cv2 = opencv()
    height, width = image.shape[:2]
    wide = min(max(width, _WIDTHS[0]), _WIDTHS[1])
    size = (wide, max(1, round(height * wide / width)))
    # Between two classes there is no third, and enlarged pixels stay pixels.
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smooth and wide < width else cv2.INTER_NEAREST)
    under = _paper(_LINE, wide)
    start = _PAD
    if bar:
        under[5:-5, start : start + _BAR_WIDTH] = heat(np.linspace(0, 1, _BAR_WIDTH)[None], 1.0)
        start += _BAR_WIDTH + _PAD
    _write(under, note, start)
    above = _paper(_LINE, wide)
    _write(above, caption, _PAD)
    return np.vstack([above, image, under])


def _legend(width: int, task: TaskSpec, present: list[int]) -> UInt8:
    """Return rows of colour and name for the classes in ``present``, as many beside each other as fit."""
    rows = [_paper(_LINE, width)]
    start = _PAD
    for name, colour in _entries(task, present):
        needed = 14 + _PAD + _text_width(name) + 3 * _PAD
        if start > _PAD and start + needed > width:
            rows.append(_paper(_LINE, width))
            start = _PAD
        rows[-1][4:18, start : start + 14] = colour
        _write(rows[-1], name, start + 14 + _PAD)
        start += needed
    return np.vstack(rows)


def _entries(task: TaskSpec, present: list[int]) -> Iterator[tuple[str, Rgb]]:
    palette = task.palette or spread_palette(task.channels)
    for index in present:
        if index < task.channels:
            yield task.class_names[index] if task.class_names else f"class {index}", palette[index]
        else:
            yield "no answer", (0, 0, 0)


def _paper(height: int, width: int) -> UInt8:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _write(strip: UInt8, text: str, start: int) -> None:
    """Write ``text`` into a strip of one line; its end is kept where it is too long: that is what tells paths apart."""
    cv2 = opencv()
    room = strip.shape[1] - start - _PAD
    # The fonts of OpenCV have nothing but ASCII.
    text = text.encode("ascii", "replace").decode("ascii")
    head, colon, rest = text.partition(": ")
    while _text_width(text) > room and len(rest) > 1:
        rest = rest[1:]
        text = f"{head}{colon}...{rest}"
    cv2.putText(strip, text, (start, 15), cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, _INK, 1, cv2.LINE_AA)


def _text_width(text: str) -> int:
    cv2 = opencv()
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, 1)[0][0])
