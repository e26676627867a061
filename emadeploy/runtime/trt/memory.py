"""Memory and work on a GPU: what is taken is owned by an arena, which frees all of it, also where making it failed.

>>> gpu = open_gpu()                                                      # doctest: +SKIP
>>> with Arena(gpu) as arena, gpu.current():                              # doctest: +SKIP
...     stream, buffer = arena.stream(), arena.buffer(1 << 20)            # doctest: +SKIP
...     pinned = arena.pinned((512, 512), "float32")                      # doctest: +SKIP
...     stream.upload(buffer, pinned)                                     # doctest: +SKIP
...     stream.synchronize()                                              # doctest: +SKIP

Work happens in the GPU's primary context, which torch, TensorRT and other users in the process share. It is made
current for each call and then the one before it again, so that any thread may work, and no other user sees a change.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.trt.cuda_driver import CudaError, Driver, load_driver
from emadeploy.runtime.trt.device import Device, here

Array = npt.NDArray[Any]

_log = logging.getLogger(__name__)
_MIB = 1 << 20


class Gpu:
    """A GPU that this process uses: ``device`` says which, ``index`` which of several.

    Its primary context is retained until the process ends, as TensorRT does too, and released after all arenas.
    """

    def __init__(self, driver: Driver, index: int) -> None:
        self.device: Device = here(index, driver)
        self.driver = driver
        self.index = index
        self._context = driver.retain(index)
        weakref.finalize(self, driver.release, index, self._context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the GPU of the calling thread for the block; blocks may be nested."""
        self.driver.push(self._context)
        try:
            yield
        finally:
            self.driver.pop()

    def describe(self) -> dict[str, str]:
        """Return 'gpu', 'compute_capability', 'driver', 'cuda' and the package that 'memory' goes through."""
        return {
            "gpu": self.device.name,
            "compute_capability": self.device.compute_capability,
            "driver": self.device.driver,
            "cuda": self.device.cuda,
            "memory": f"{self.driver.package} {self.driver.version}",
        }

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory nobody has taken. Raises DeviceError."""
        with self.current():
            return self.driver.memory_info()[0]

    def checked(self, what: str, size: int, allocate: Callable[[int], Any]) -> Any:
        """Return ``allocate(size)``; raises DeviceError that says how much was asked for where there is no room."""
        try:
            return allocate(size)
        except CudaError as error:
            if not error.out_of_memory:
                raise
            room = "?"
            with suppress(CudaError):
                room = "{:.0f} of {:.0f}".format(*(count / _MIB for count in self.driver.memory_info()))
            raise DeviceError(
                f"out of memory on {self.device.name}: {size / _MIB:.1f} MiB asked for as {what}, {room} MiB are free. "
                "Close other programs or artifacts on it, keep fewer frames in flight, or export for a smaller --size"
            ) from None


_OPEN: dict[tuple[str, int], Gpu] = {}
_OPENING = threading.Lock()


def open_gpu(index: int = 0, package: str | None = None) -> Gpu:
    """Return GPU ``index`` through ``package`` ('pycuda', 'cuda-python'; see `load_driver`), one per process.

    Raises DeviceError where there is none, BackendMissing where no such package is installed.
    """
    driver = load_driver(package)
    with _OPENING:
        key = (driver.package, index)
        if key not in _OPEN:
            _OPEN[key] = Gpu(driver, index)
        return _OPEN[key]


class Buffer:
    """Bytes on the GPU, at ``address``."""

    def __init__(self, raw: Any, address: int, size: int) -> None:
        self.raw = raw
        self.address = address
        self.bytes = size


class Event:
    """A moment in the work of a stream."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.raw: Any = driver.make_event()

    def milliseconds_since(self, first: Event) -> float:
        """Wait until this event has happened, and return the time since ``first``."""
        return self._driver.milliseconds(first.raw, self.raw)

    def destroy(self) -> None:
        raw, self.raw = self.raw, None
        self._driver.destroy_event(raw)


class Stream:
    """Work that the GPU does in order. Its methods want the GPU current (:meth:`Gpu.current`) and raise DeviceError.

    Pinned arrays and buffers must live until the work on them is done.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.raw: Any = driver.make_stream()

    @property
    def handle(self) -> int:
        """What TensorRT calls it."""
        return self._driver.handle(self.raw)

    def upload(self, buffer: Buffer, pinned: Array) -> None:
        """Copy ``pinned`` into ``buffer``, some time; they are of one size."""
        assert pinned.nbytes == buffer.bytes, f"{pinned.nbytes} bytes into {buffer.bytes}"
        self._driver.upload(buffer.raw, pinned, self.raw)

    def download(self, pinned: Array, buffer: Buffer) -> None:
        """Copy ``buffer`` into ``pinned``, some time; they are of one size."""
        assert pinned.nbytes == buffer.bytes, f"{buffer.bytes} bytes into {pinned.nbytes}"
        self._driver.download(pinned, buffer.raw, self.raw)

    def record(self, event: Event) -> None:
        """Let ``event`` happen after the work so far."""
        self._driver.record(event.raw, self.raw)

    def synchronize(self) -> None:
        """Wait for all work; an error of any of it is raised here."""
        self._driver.synchronize(self.raw)

    def destroy(self) -> None:
        raw, self.raw = self.raw, None
        self._driver.destroy_stream(raw)


class Graph:
    """Work of a stream, recorded once and launched as a whole: the host's part of it takes microseconds."""

    def __init__(self, driver: Driver, stream: Stream, work: Callable[[], None]) -> None:
        self._driver = driver
        driver.begin_capture(stream.raw)
        try:
            work()
        except BaseException:
            with suppress(CudaError):  # the capture must end, and the error of the work is the one that matters
                driver.destroy_graph(driver.end_capture(stream.raw))
            raise
        self.raw: Any = driver.end_capture(stream.raw)

    def launch(self, stream: Stream) -> None:
        """Do the work. Raises DeviceError."""
        self._driver.launch(self.raw, stream.raw)

    def destroy(self) -> None:
        raw, self.raw = self.raw, None
        self._driver.destroy_graph(raw)


class Held:
    """Something of another library's that lives on the GPU: ``value`` until the arena that holds it is closed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def drop(self) -> None:
        """Forget it: whoever held it last destroys it."""
        self.value = None


class Arena:
    """Owns what is taken through it on ``gpu``, and frees it in reverse order: when closed, collected, or at exit.

    What it holds for others goes first, when none of its streams works any more, and before the GPU's context ends:
    TensorRT crashes where its objects outlive that. Each method raises DeviceError; what was taken stays owned.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._owned = ExitStack()
        self._streams: list[Stream] = []
        self._held: list[Held] = []
        self._release = weakref.finalize(self, _release, gpu, self._streams, self._held, self._owned)

    def hold(self, value: Any) -> Held:
        """Return ``value`` held; nobody else should keep it."""
        held = Held(value)
        self._held.append(held)
        return held

    def stream(self) -> Stream:
        """Return a new stream."""
        with self._gpu.current():
            stream = Stream(self._gpu.driver)
            self._streams.append(stream)
            self._owned.callback(stream.destroy)
        return stream

    def event(self) -> Event:
        """Return a new event."""
        with self._gpu.current():
            event = Event(self._gpu.driver)
            self._owned.callback(event.destroy)
        return event

    def buffer(self, size: int) -> Buffer:
        """Return ``size`` bytes on the GPU."""
        driver = self._gpu.driver
        with self._gpu.current():
            raw = self._gpu.checked("a buffer of the GPU", size, driver.allocate)
            self._owned.callback(driver.free, raw)
            return Buffer(raw, driver.address(raw), size)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array in page-locked memory of the host. Let go of it before the arena is closed."""
        driver = self._gpu.driver
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self._gpu.current():
            memory, array = self._gpu.checked("page-locked memory of the host", size, driver.allocate_pinned)
            self._owned.callback(driver.free_pinned, memory)
        return array.view(dtype).reshape(shape)  # type: ignore[no-any-return]

    def graph(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Return what ``work`` gives to ``stream`` as a graph; none of it happens yet."""
        with self._gpu.current():
            graph = Graph(self._gpu.driver, stream, work)
            self._owned.callback(graph.destroy)
        return graph

    def close(self) -> None:
        """Wait for the work of its streams and free everything. Closing twice is allowed."""
        self._release()

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _release(gpu: Gpu, streams: list[Stream], held: list[Held], owned: ExitStack) -> None:
    try:
        with gpu.current():
            for stream in streams:
                # Memory must outlive the work on it. Work that failed has told its caller so, or nobody waits for it.
                with suppress(CudaError):
                    stream.synchronize()
            streams.clear()
            while held:
                held.pop().drop()
            owned.close()  # goes on past what cannot be freed, and raises the last of these errors
    except CudaError as error:
        # After an error on the GPU itself the whole context is lost, and what was in it.
        _log.warning("%s: not all of it could be freed: %s", gpu.device.name, error)
