"""Frames in flight: an engine works on one while the caller prepares the next and decodes the last."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.session import Array

Inputs = Mapping[str, Array]
Answers = Mapping[str, Array]


class Slot(Protocol):
    """A place for one frame in an engine. ``start`` and ``wait`` take turns."""

    def start(self, inputs: Inputs) -> None:
        """Begin with ``inputs`` and return at once. Raises DeviceError where the engine refuses."""

    def wait(self) -> Answers:
        """Return the answers, which belong to the caller, when they are there. Raises DeviceError."""


class CalledSlot:
    """A place in an engine that knows no more than to run one frame: the thread of ``worker`` does that.

    Several slots share one ``worker``: a frame may wait there while another runs.
    """

    def __init__(self, worker: ThreadPoolExecutor, run: Callable[[Inputs], Answers]) -> None:
        self._worker, self._run = worker, run
        self._future: Future[Answers] | None = None

    def start(self, inputs: Inputs) -> None:
        """Have ``inputs`` run when those before them are done."""
        self._future = self._worker.submit(self._run, inputs)

    def wait(self) -> Answers:
        """Return the answers, or raise what running them raised."""
        assert self._future is not None, "wait before start"
        future, self._future = self._future, None
        return future.result()


class Job:
    """One frame that was given to a queue."""

    def __init__(self, slot: Slot) -> None:
        self._slot: Slot | None = slot
        self._lock = threading.Lock()
        self._answers: Answers = {}
        self._error: Exception | None = None

    def result(self) -> Answers:
        """Return the answers of this frame, as :meth:`Session.run` does, waiting for them; any number of times.

        Raises DeviceError where the engine failed at this frame; other frames do not see that.
        """
        self.settle()
        if self._error is not None:
            raise self._error
        return self._answers

    def settle(self) -> None:
        """Wait until the engine is done with this frame, well or not, and let go of its slot."""
        with self._lock:
            if self._slot is None:
                return
            try:
                self._answers = self._slot.wait()
            except Exception as error:
                self._error = error
            self._slot = None


class InferQueue:
    """At most ``depth`` frames in an engine, answered in the order in which they came.

    >>> with session.queue(depth=2) as queue:                               # doctest: +SKIP
    ...     for job in queue.map(prepared_frames):                          # doctest: +SKIP
    ...         show(job.result())                                          # doctest: +SKIP

    One thread submits; any thread may wait for a job. Close it, or use it in a ``with`` block: frames in flight are
    waited for then. It keeps the engine loaded until then, even where the session is closed first.
    """

    def __init__(self, make_slot: Callable[[], Slot], depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth} is not positive")
        self._free = deque(make_slot() for _ in range(depth))
        self._busy: deque[tuple[Slot, Job]] = deque()
        self._closed = False

    def submit(self, inputs: Inputs) -> Job:
        """Give a frame to the engine; waits while ``depth`` frames are in flight. ``inputs`` are as for `Session.run`,
        and must not change before the job is done.

        Raises DeviceError where the engine refuses the frame, or the queue is closed.
        """
        if self._closed:
            raise DeviceError("the queue is closed: make another with session.queue()")
        if not self._free:
            slot, job = self._busy.popleft()
            job.settle()
            self._free.append(slot)
        slot = self._free.popleft()
        try:
            slot.start(inputs)
        except BaseException:
            self._free.append(slot)
            raise
        job = Job(slot)
        self._busy.append((slot, job))
        return job

    def map(self, frames: Iterable[Inputs]) -> Iterator[Job]:
        """Yield a job per frame, in order, keeping the engine busy: while one is yielded, later ones are in flight.

        A frame is taken from ``frames`` when there is room for it, so that an endless source is fine. A frame at which
        the engine fails raises from its own ``result()``; those after it are answered all the same.
        """
        ahead: deque[Job] = deque()
        depth = len(self._free) + len(self._busy)
        for inputs in frames:
            if len(ahead) == depth:
                yield ahead.popleft()
            ahead.append(self.submit(inputs))
        yield from ahead

    def close(self) -> None:
        """Wait for the frames in flight and free the engine's slots. Closing twice is allowed."""
        self._closed = True
        while self._busy:
            self._busy.popleft()[1].settle()
        self._free.clear()

    def __enter__(self) -> InferQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
