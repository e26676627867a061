"""Plots as SVG text, to stand inside a page: histogram, scatter, stacked bars.

Colours are classes of `page.css`, so that a plot is right in the light and in the dark. Each has a title and a
description for those who have it read to them. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emadeploy.bench.svg import document, log_ticks, tag, ticks

#: Colours of `page.css`: .s0 to .s7.
SERIES = 8
#: Numbers that differ by less, as a share, are one: no axis can tell them apart.
_SAME = 1e-6
#: Left, top, right and bottom, pixels.
_Box = tuple[float, float, float, float]
#: Pixels between two names over a histogram that must not touch.
_MARK_GAP = 28.0
#: Left, right, top and bottom of what a scatter plot draws in.
_FRAME = 56, 540, 58, 300


@dataclass(frozen=True)
class Point:
    """A mark of a scatter plot; ``low`` and ``high`` are the ends of its interval along x. ``hollow``: an estimate."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar of several parts, in the units of its plot, and what is written behind it."""

    label: str
    parts: Mapping[str, float]
    text: str


def histogram(
    title: str, samples: Sequence[float], marks: Mapping[str, float], extent: tuple[float, float], unit: str = "ms"
) -> str:
    """Return how often each time came, between the ends of ``extent``.

    ``marks`` are lines with a name, such as percentiles. What lies beyond an end is counted in the bin there.
    """
    width, height, edge, top, bottom = 560, 168, 10, 46, 138
    low, high = extent
    if high - low <= _SAME * abs(high):
        low, high = low - 0.5, high + 0.5
    bins = max(8, min(40, round(3 * math.sqrt(len(samples)))))  # a bin of a single call tells nothing
    counts, _ = np.histogram(np.clip(samples, low, high), bins, (low, high))
    step, tallest = (width - 2 * edge) / bins, int(counts.max())

    def across(value: float) -> float:
        return edge + (width - 2 * edge) * (min(max(value, low), high) - low) / (high - low)

    parts = [tag("text", title, cls="strong", x=edge, y=14)]
    for index, count in enumerate(counts):
        tall = (bottom - top) * int(count) / tallest
        if count:
            parts.append(tag("rect", cls="s0", x=edge + index * step, y=bottom - tall, width=step - 1, height=tall))
    parts.append(tag("line", cls="axis", x1=edge, y1=bottom, x2=width - edge, y2=bottom))
    for tick in ticks(low, high):
        x = across(tick)
        if edge + 24 < x < width - 40:
            parts.append(tag("text", _number(tick), x=x, y=bottom + 18, text_anchor="middle"))
    parts.append(tag("text", unit, x=width - edge, y=bottom + 18, text_anchor="end"))
    parts += _marks(marks, across, top, bottom)
    told = ", ".join(f"{name} {value:.4g} {unit}" for name, value in marks.items())
    said = f"{len(samples)} calls between {min(samples):.4g} and {max(samples):.4g} {unit}; {told}"
    return document(title, said, width, height, parts)


def scatter(title: str, points: Sequence[Point], x_title: str, y_title: str, *, higher_is_better: bool) -> str:
    """Return the points with their labels. Better is up: the axis runs downwards where lower is better.

    The x axis is logarithmic: a distance on it is a ratio.
    """
    left, right, top, bottom = _FRAME
    low, high = _widened([math.log10(x) for point in points for x in (point.x, point.low, point.high) if x])
    y_low, y_high = _widened([point.y for point in points])

    def across(value: float) -> float:
        return left + (right - left) * (math.log10(value) - low) / (high - low)

    def up(value: float) -> float:
        share = (value - y_low) / (y_high - y_low)
        return bottom - (bottom - top) * (share if higher_is_better else 1 - share)

    parts = []
    for tick in ticks(y_low, y_high):
        parts.append(tag("line", cls="grid", x1=left, y1=up(tick), x2=right, y2=up(tick)))
        parts.append(tag("text", _number(tick), x=left - 8, y=up(tick) + 4, text_anchor="end"))
    for tick in log_ticks(10**low, 10**high):
        parts.append(tag("line", cls="grid", x1=across(tick), y1=top, x2=across(tick), y2=bottom))
        parts.append(tag("text", _number(tick), x=across(tick), y=bottom + 18, text_anchor="middle"))
    parts.append(tag("text", x_title, x=(left + right) / 2, y=bottom + 40, text_anchor="middle"))
    parts.append(tag("text", y_title, cls="strong", x=left, y=top - 38))
    parts.append(tag("text", "better: up and left", x=right, y=top - 38, text_anchor="end"))
    places = [(across(point.x), up(point.y)) for point in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    for point, (_, y) in zip(points, places, strict=True):
        if point.low and point.high:
            taken.append((across(point.low), y - 2, across(point.high), y + 2))
    for index, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
        if point.low and point.high:
            ends = across(point.low), across(point.high)
            parts.append(tag("line", cls=f"s{index % SERIES} whisker", x1=ends[0], y1=y, x2=ends[1], y2=y))
        colour = f"s{index % SERIES}{' hollow' if point.hollow else ''}"
        parts.append(tag("circle", cls=colour, cx=x, cy=y, r=6))
        parts.append(_label(point.label, x, y, taken))
    said = "; ".join(f"{point.label}: {point.x:.4g}, {point.y:.4g}" for point in points)
    return document(title, f"{y_title} over {x_title}. {said}", right + 24, bottom + 52, parts)


def bars(title: str, found: Sequence[Bar], colours: Mapping[str, int], unit: str) -> str:
    """Return horizontal bars below each other; ``colours`` gives that of each sort of part, 0 to SERIES - 1."""
    width, row = 720, 26
    left = 14 + max((_text_width(bar.label) for bar in found), default=0.0)
    right = 20 + max((_text_width(bar.text) for bar in found), default=0.0)
    top, x = 8, left
    parts = []
    if len(colours) > 1:
        for name, colour in colours.items():
            parts.append(tag("rect", cls=f"s{colour}", x=x, y=6, width=11, height=11, rx=2))
            parts.append(tag("text", name, x=x + 16, y=16))
            x += 36 + _text_width(name)
        top = 34
    longest = max((sum(bar.parts.values()) for bar in found), default=0) or 1.0
    for index, bar in enumerate(found):
        y, x = top + row * index, left
        parts.append(tag("text", bar.label, x=left - 10, y=y + 16, text_anchor="end"))
        for name, value in bar.parts.items():
            wide = (width - left - right) * value / longest
            parts.append(tag("rect", cls=f"s{colours[name]}", x=x, y=y + 3, width=wide, height=row - 8))
            x += wide
        parts.append(tag("text", bar.text, x=x + 8, y=y + 16))
    said = "; ".join(f"{bar.label}, {bar.text}: {_listed(bar.parts, unit)}" for bar in found)
    return document(title, said, width, top + row * len(found) + 4, parts)


def _marks(marks: Mapping[str, float], across: Callable[[float], float], top: int, bottom: int) -> Iterator[str]:
    last = -math.inf
    for name, value in sorted(marks.items(), key=lambda mark: mark[1]):
        x = across(value)
        yield tag("line", cls="mark", x1=x, y1=top - 4, x2=x, y2=bottom)
        # Names that stand too close would hide each other; the line and the description tell them all the same.
        if x - last > _MARK_GAP:
            anchor = "start" if x < _MARK_GAP else "middle"
            yield tag("text", name, x=x, y=top - 8, text_anchor=anchor)
            last = x


def _label(text: str, x: float, y: float, taken: list[_Box]) -> str:
    """Return a label beside its point, where nothing else is if there is such a place; it is ``taken`` then."""
    wide = _text_width(text)
    # To the right, to the left, above, below, in the corners, and further away.
    steps = [(12, 0), (-12, 0), (0, -16), (0, 16), (8, -14), (-8, -14), (8, 14), (-8, 14), (8, -28), (8, 28)]
    tried = []
    for right, down in steps:
        start = x + right if right > 0 else x + right - wide if right < 0 else x - wide / 2
        box = (start, y + down - 6, start + wide, y + down + 6)
        anchor = ("start", "middle", "end")[1 - (right > 0) + (right < 0)]
        tried.append(
            (
                _crowded(box, taken),
                box,
                tag("text", text, cls="strong", x=x + right, y=y + down + 4, text_anchor=anchor),
            )
        )
    _, box, label = min(tried, key=lambda one: one[0])  # of equally free places, the first
    taken.append(box)
    return label


def _crowded(box: _Box, taken: Sequence[_Box]) -> float:
    """Return how many pixels of ``box`` are others', or outside of the plot."""
    left, right, *_ = _FRAME
    outside = max(0.0, left - box[0]) + max(0.0, box[2] - right - 20)
    return outside * (box[3] - box[1]) + sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) if high - low > _SAME * abs(high) else 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _text_width(text: str) -> float:
    """Return about how many pixels wide a text is: nobody can know the reader's fonts."""
    return 7.2 * len(text)


def _listed(parts: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{name} {value:.3g} {unit}" for name, value in parts.items())


def _number(value: float) -> str:
    return f"{value:.6g}"
