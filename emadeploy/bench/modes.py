"""What two rows must share for a ratio of their times to mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Key of a row's ``mode`` -> what messages call it.
_SHARED = {
    "device": "device",
    "threads": "threads",
    "image_size": "image size",
    "frame": "frame",
    "tasks": "tasks",
    "untrained": "random weights",
    "power_mode": "power mode",
}


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Return in what two rows' ``mode`` differ that makes their times incomparable, in words; ``None`` in nothing.

    The engine, its precision and the form of the graph may differ: that is what is compared.
    """
    found = []
    for key, called in _SHARED.items():
        mine, other = ours.get(key), theirs.get(key)
        if mine is None and other is None:
            continue
        if _plain(mine) != _plain(other):
            found.append(f"{called} {_shown(mine)} against {_shown(other)}")
    return ", ".join(found) or None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        numbers = all(isinstance(item, int) for item in value)
        return ("x" if numbers else "+").join(map(str, value))
    return str(value)
