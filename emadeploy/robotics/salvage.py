"""Reading on behind damage: a recording has time, so what follows a broken part can be found by its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
#: Nanoseconds of the first step over damage, and of the longest: chunks of a recording last about that.
_FIRST, _LONGEST = 10**6, 10**9 // 4

#: Returns an iterator over what was recorded from a time on, in nanoseconds; ``None``: from the beginning.
ReadFrom = Callable[[int | None], Iterator[tuple[int, _Item]]]
#: What becomes of damage: the time in nanoseconds before it, the error that it gave.
OnDamage = Callable[[int, Exception], None]


def read_past_damage(
    read_from: ReadFrom[_Item], begin: int, end: int, on_damage: OnDamage
) -> Iterator[tuple[int, _Item]]:
    """Yield (nanoseconds, item) in order of time, and where reading raises, go on behind it.

    ``begin`` and ``end``: the time of the first item and of the last, in nanoseconds. Good parts shorter than a quarter
    of a second between two that are broken may be passed over.
    """
    last, start = begin - 1, None
    while True:
        try:
            for time, item in read_from(start):
                last = time
                yield time, item
            return
        except Exception as error:  # noqa: PERF203 - once per damaged place
            on_damage(max(last, begin), error)
            found = _next_readable(read_from, last, end)
            if found is None:
                return
            start, last = found, found


def _next_readable(read_from: ReadFrom[_Item], last: int, end: int) -> int | None:
    """Return the first time after ``last`` from which can be read; ``None`` where there is none up to ``end``."""
    bad, step = last, _FIRST
    while not _readable(read_from, bad + step):
        bad += step
        step = min(2 * step, _LONGEST)
        if bad > end:
            return None
    good = bad + step
    while good - bad > 1:
        middle = (bad + good) // 2
        if _readable(read_from, middle):
            good = middle
        else:
            bad = middle
    return good


def _readable(read_from: ReadFrom[_Item], start: int) -> bool:
    try:
        next(read_from(start), None)
    except Exception:
        return False
    return True
