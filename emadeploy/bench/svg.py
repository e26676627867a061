"""Pieces of an SVG picture as text, escaped, and the round numbers of its axes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from html import escape


def tag(name: str, text: str = "", /, **attributes: str | float) -> str:
    """Return an element. ``cls`` is its class; '_' in names becomes '-'; numbers are rounded to a tenth of a pixel."""
    said = "".join(
        f' {"class" if key == "cls" else key.replace("_", "-")}="{_value(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{said}>{escape(text)}</{name}>" if text else f"<{name}{said}/>"


def document(title: str, said: str, width: int, height: int, parts: Sequence[str]) -> str:
    """Return the picture of ``parts``, as wide as its place up to ``width`` pixels.

    ``title`` and ``said`` are what people hear who have it read to them: what it is, and what it shows.
    """
    # The same picture has the same name whenever it is drawn, and two on a page differ.
    name = "p" + hashlib.sha256("".join((title, said, *parts)).encode()).hexdigest()[:10]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{name}-t {name}-d" style="max-width:{width}px">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(said)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about ``wanted`` round numbers between ``low`` and a larger ``high``."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.9g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between ``low`` and ``high``, above 0: 1, 2, 5, 10 ...; finer ones where these are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{factor * 10.0**power:.9g}") for power in powers for factor in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    if len(inside) > 8:
        inside = [value for value in inside if math.log10(value).is_integer()]
    return inside if len(inside) >= 3 else ticks(low, high)


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
