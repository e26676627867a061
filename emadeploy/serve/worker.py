"""The thread of one artifact, and the bounded number of requests that may be in it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from emadeploy.runtime import Runtime
from emadeploy.serve.faults import Fault


@dataclass(eq=False)
class _Job:
    """Work that waits for the thread. It is dropped with its picture when its future is done or cancelled."""

    work: Callable[[], Any] | None
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """The thread of one artifact. ``places`` requests are in it at a time: read, waiting, running or being answered."""

    def __init__(self, runtime: Runtime, places: int) -> None:
        self.runtime, self.places, self.taken = runtime, places, 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: set[_Job] = set()
        self._since: float | None = None
        # A daemon: an engine that never comes back must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="emadeploy-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine."""
        return len(self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds that the engine has been at the frame at hand, 0 where it is at none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def enter(self) -> Place:
        """Return a place; Fault 503 where all are taken."""
        with self._lock:
            if self.taken >= self.places:
                raise Fault(503, "the queue of this model is full; try again later", Retry_After="1")
            self.taken += 1
        return Place(self)

    def close(self, seconds: float) -> bool:
        """End the thread after the frame at hand and free the engine; false where that takes more than ``seconds``.

        Then the engine is left as it is: freeing what it works on would crash.
        """
        for job in list(self._waiting):
            job.future.cancel()
        self._jobs.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self.runtime.close()
        return True

    def _submit(self, work: Callable[[], Any]) -> Future[Any]:
        job = _Job(work)

        def done(_: Future[Any]) -> None:
            self._waiting.discard(job)
            job.work = None

        job.future.add_done_callback(done)
        self._waiting.add(job)
        self._jobs.put(job)
        return job.future

    def _leave(self) -> None:
        with self._lock:
            self.taken -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._waiting.discard(job)
            work, future = job.work, job.future
            if work is not None and future.set_running_or_notify_cancel():
                self._since = time.monotonic()
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
                finally:
                    self._since = None
            del job, work, future  # else the last maps would stay until the next frame


class Place:
    """A place in a worker, held from before the body is read until the answer is written."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._left = worker, False
        self._future: Future[Any] | None = None

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue ``work`` for the worker's thread."""
        self._future = self._worker._submit(work)
        return self._future

    def leave(self) -> None:
        """Give the place back, at once unless the engine is at its frame: then at its end. Twice is allowed."""
        if self._left:
            return
        self._left = True
        if self._future is None:
            self._worker._leave()
        else:
            self._future.cancel()
            self._future.add_done_callback(lambda _: self._worker._leave())
