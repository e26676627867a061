"""A bounded queue between two threads: full, it makes its writer wait, or it forgets the oldest for the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Ended(Exception):  # noqa: N818 - no error: how a thread learns that there is nothing left to do
    """No more items come, or none are wanted."""


class Line(Generic[_Item]):
    """At most ``room`` items wait in it, taken in the order in which they came. One thread puts, one takes.

    Without ``may_drop`` nothing is lost: :meth:`put` waits where the line is full. With it, :meth:`put` never waits:
    the oldest item that ``may_drop`` accepts makes room; where it accepts none of those waiting, the new one is
    dropped, which ``may_drop`` must then accept, or it waits like the others.
    """

    def __init__(self, room: int, *, may_drop: Callable[[_Item], bool] | None = None) -> None:
        if room < 1:
            raise ValueError(f"room {room} is not positive")
        self._room = room
        self._may_drop = may_drop
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False

    def put(self, item: _Item) -> _Item | None:
        """Add ``item``; return the item that was dropped for it, if one was. Raises Ended after :meth:`stop`."""
        with self._changed:
            dropped = self._make_room(item)
            if dropped is item:
                return item
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._room)
            if self._stopped:
                raise Ended
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def take(self) -> _Item:
        """Remove and return the oldest item, waiting for one. Raises Ended where none is left after :meth:`end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ended or bool(self._items))
            if self._stopped or not self._items:
                raise Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Say that nothing more comes; what waits can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Say that nothing more is wanted: what waits is let go, and both threads learn it at once."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)

    def _make_room(self, item: _Item) -> _Item | None:
        if self._may_drop is None or self._stopped or len(self._items) < self._room:
            return None
        for index, waiting in enumerate(self._items):
            if self._may_drop(waiting):
                del self._items[index]
                return waiting
        return item if self._may_drop(item) else None
