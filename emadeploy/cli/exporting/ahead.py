"""Data to judge on, made ready while the network is traced, which keeps one core busy and leaves the others idle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import cached_property
from threading import Event
from types import TracebackType

from emadeploy.cli.progress import progress
from emadeploy.data.sample import Dataset, Sample
from emadeploy.data.source import ROOM_SPECS, RoomsData, open_data, parse_data
from emadeploy.runtime.machine import usable_cores

SPLIT = "val"
#: Seconds in which what cannot be rendered at all (no renderer, no place) has failed.
EARLY_S = 0.2


def open_now(text: str) -> Dataset:
    """Return the held-out split of DATA; rooms are rendered first, with a bar. Raises what `open_data` raises."""
    with progress("rendering") as bar:
        return open_data(text, split=SPLIT, workers=usable_cores(), progress=bar)


class Ahead:
    """A block in which rooms are rendered in the background. What is not rendered at its end is left undone."""

    def __init__(self) -> None:
        self._ending = Event()
        self._block = ExitStack()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ending.set()
        self._block.close()

    def open(self, text: str) -> Dataset:
        """Return the held-out split of DATA, as `open_now`; rooms can be asked what they are while they are rendered.

        What rendering raises is raised here where it fails at once, else where a room, or their number, is first
        looked at.
        """
        source = parse_data(text)
        # A lone process would render in this one, and hold up what it is to run beside.
        if not isinstance(source, RoomsData) or usable_cores() < 2:
            return open_now(text)
        return _Rooms(source, self._block.enter_context(ThreadPoolExecutor(1, "rooms")), self._ending)


class _Left(Exception):  # noqa: N818 - nothing is wrong: nobody waits for the rooms any more
    """The block has ended."""


class _Rooms:
    """Rooms that are being rendered, as a data set."""

    def __init__(self, rooms: RoomsData, pool: ThreadPoolExecutor, ending: Event) -> None:
        self._ending, self._counts = ending, (0, rooms.count)
        self.description, self.specs = f"{rooms} {SPLIT}", ROOM_SPECS
        self._opening = pool.submit(
            open_data, str(rooms), split=SPLIT, workers=usable_cores(), progress=self._keep_count
        )
        if wait([self._opening], timeout=EARLY_S).done:
            self._opening.result()

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs)

    def __len__(self) -> int:
        return len(self._opened)

    def __getitem__(self, index: int) -> Sample:
        return self._opened[index]

    @cached_property
    def _opened(self) -> Dataset:
        with progress("rendering") as bar:
            while not wait([self._opening], timeout=0.1).done:
                bar(*self._counts)
        return self._opening.result()

    def _keep_count(self, done: int, total: int) -> None:
        if self._ending.is_set():
            raise _Left
        self._counts = done, total
