"""CUDA without a GPU: a machine that counts what is taken and works as late as it may, behind pycuda or cuda-python.

A stream does nothing until it is synchronised, and then all of its work in order; memory is full of rubbish when it is
taken. So a copy that was forgotten, an order that was swapped or a wait that is missing gives other answers. Every call
wants a current context, as CUDA does. The two packages have the names and parameters that were recorded of them
(``tools/record_cuda_api.py``), so that a call which a version lacks fails a test.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

RECORD = Path(__file__).parent / "reference" / "cuda_api.json"
#: The recorded versions: 'pycuda-2026.1', 'cuda-python-12.2.1'...
VERSIONS: tuple[str, ...] = tuple(json.loads(RECORD.read_text("utf-8"))) if RECORD.exists() else ()
RUBBISH = 0xCB

CUresult = IntEnum(
    "CUresult",
    {
        "CUDA_SUCCESS": 0,
        "CUDA_ERROR_INVALID_VALUE": 1,
        "CUDA_ERROR_OUT_OF_MEMORY": 2,
        "CUDA_ERROR_NOT_INITIALIZED": 3,
        "CUDA_ERROR_STUB_LIBRARY": 34,
        "CUDA_ERROR_NO_DEVICE": 100,
        "CUDA_ERROR_INVALID_DEVICE": 101,
        "CUDA_ERROR_INVALID_CONTEXT": 201,
        "CUDA_ERROR_INVALID_HANDLE": 400,
        "CUDA_ERROR_ILLEGAL_ADDRESS": 700,
        "CUDA_ERROR_LAUNCH_FAILED": 719,
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": 803,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": 900,
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901,
    },
)
#: What cuGetErrorString says, which is all that pycuda tells of an error.
WORDS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "out of memory",
    "CUDA_ERROR_NO_DEVICE": "no CUDA-capable device is detected",
    "CUDA_ERROR_STUB_LIBRARY": "CUDA driver is a stub library",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "system has unsupported display driver / cuda driver combination",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "an illegal memory access was encountered",
}


class Failure(Exception):  # noqa: N818 - what a call answers
    """A call that does not answer CUDA_SUCCESS."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.status = CUresult[name]


@dataclass(frozen=True)
class FakeGpu:
    name: str = "NVIDIA Fake 4000"
    capability: tuple[int, int] = (8, 9)
    memory: int = 8 << 30


@dataclass
class _Stream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    capture: list[Callable[[], None]] | None = None
    spoilt: bool = False
    flags: int = 0


class Machine:
    """GPUs with CUDA ``cuda`` (12060 for 12.6). ``fail`` plans failures; ``live`` holds all that nobody has freed."""

    def __init__(self, gpus: tuple[FakeGpu, ...] = (FakeGpu(),), cuda: int = 12060) -> None:
        self.gpus, self.cuda = gpus, cuda
        self.live: dict[int, tuple[str, Any]] = {}
        self.calls: list[str] = []
        self.retained: list[int] = []
        self.started = False
        self.capacity: int | None = None
        self.released: list[int] = []
        self._failures: dict[str, list[Any]] = {}
        self._handles = itertools.count(1001)
        self._threads = threading.local()

    # What tests ask and plan

    def fail(self, call: str, name: str = "CUDA_ERROR_LAUNCH_FAILED", after: int = 0) -> None:
        """Let ``call`` answer ``name`` once, after that many calls of it which go well."""
        self._failures[call] = [after, name]

    def kinds(self) -> list[str]:
        """Return the kinds of all that is taken: 'buffer', 'pinned', 'stream', 'event', 'graph', 'template'."""
        return sorted(kind for kind, _ in self.live.values())

    def taken(self) -> int:
        """Return how many bytes of the GPU are taken."""
        return sum(ctypes.sizeof(thing) for kind, thing in self.live.values() if kind == "buffer")

    @property
    def stack(self) -> list[int]:
        """The contexts of this thread; the last one is current."""
        if not hasattr(self._threads, "stack"):
            self._threads.stack = []
        found: list[int] = self._threads.stack
        return found

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Give a stream work, as TensorRT does. Raises Failure where no context is current."""
        self._current()
        found = self._get("stream", stream)
        (found.queue if found.capture is None else found.capture).append(work)

    def spoil(self, stream: int) -> None:
        """Do what no capture allows, as an allocation inside of it: it cannot end well."""
        self._get("stream", stream).spoilt = True

    # CUDA

    def call(self, name: str, *arguments: Any) -> Any:
        """Do what CUDA's function ``name`` does. Raises Failure."""
        self.calls.append(name)
        planned = self._failures.get(name)
        if planned is not None:
            planned[0] -= 1
            if planned[0] < 0:
                del self._failures[name]
                if name == "cuStreamEndCapture":
                    self._get("stream", arguments[0]).capture = None  # it ends, well or not
                raise Failure(planned[1])
        if name != "cuInit" and not self.started:
            raise Failure("CUDA_ERROR_NOT_INITIALIZED")
        return getattr(self, f"_{name}")(*arguments)

    def _cuInit(self, flags: int) -> None:  # noqa: N802
        if not self.gpus:
            raise Failure("CUDA_ERROR_NO_DEVICE")
        self.started = True

    def _cuDriverGetVersion(self) -> int:  # noqa: N802
        return self.cuda

    def _cuDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def _cuDeviceGet(self, ordinal: int) -> int:  # noqa: N802
        if not 0 <= ordinal < len(self.gpus):
            raise Failure("CUDA_ERROR_INVALID_DEVICE")
        return ordinal

    def _cuDevicePrimaryCtxRetain(self, device: int) -> int:  # noqa: N802
        self.retained.append(int(device))
        return 500 + int(device)

    def _cuDevicePrimaryCtxRelease(self, device: int) -> None:  # noqa: N802
        self.released.append(int(device))

    def _cuCtxPushCurrent(self, context: int) -> None:  # noqa: N802
        self.stack.append(int(context))

    def _cuCtxPopCurrent(self) -> int:  # noqa: N802
        if not self.stack:
            raise Failure("CUDA_ERROR_INVALID_CONTEXT")
        return self.stack.pop()

    def _cuStreamCreate(self, flags: int) -> int:  # noqa: N802
        return self._take("stream", _Stream(flags=flags))

    def _cuStreamDestroy(self, stream: int) -> None:  # noqa: N802
        self._drop("stream", stream)

    def _cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        found = self._get("stream", stream)
        if found.capture is not None:
            found.spoilt = True
            raise Failure("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        queue, found.queue = found.queue, []
        for work in queue:
            work()

    def _cuMemAlloc(self, size: int) -> int:  # noqa: N802
        if self.taken() + size > (self.gpus[0].memory if self.capacity is None else self.capacity):
            raise Failure("CUDA_ERROR_OUT_OF_MEMORY")
        return self._take_bytes("buffer", size)

    def _cuMemFree(self, address: int) -> None:  # noqa: N802
        self._drop("buffer", address)

    def _cuMemHostAlloc(self, size: int, flags: int) -> int:  # noqa: N802
        return self._take_bytes("pinned", size)

    def _cuMemFreeHost(self, address: int) -> None:  # noqa: N802
        self._drop("pinned", address)

    def _cuMemcpyHtoDAsync(self, device: int, host: int, size: int, stream: int) -> None:  # noqa: N802
        self._copy(("buffer", int(device)), ("pinned", int(host)), size, stream)

    def _cuMemcpyDtoHAsync(self, host: int, device: int, size: int, stream: int) -> None:  # noqa: N802
        self._copy(("pinned", int(host)), ("buffer", int(device)), size, stream)

    def _cuEventCreate(self, flags: int) -> int:  # noqa: N802
        return self._take("event", [])

    def _cuEventDestroy(self, event: int) -> None:  # noqa: N802
        self._drop("event", event)

    def _cuEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        moments, count = self._get("event", event), self._get("stream", stream)
        moments[:] = [stream, len(count.queue)]

    def _cuEventSynchronize(self, event: int) -> None:  # noqa: N802
        self._cuStreamSynchronize(self._get("event", event)[0])

    def _cuEventElapsedTime(self, start: int, end: int) -> float:  # noqa: N802
        """A millisecond for each piece of work between."""
        return float(self._get("event", end)[1] - self._get("event", start)[1])

    def _cuStreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        assert int(mode) == 1, "a capture that what other threads do would spoil"
        found = self._get("stream", stream)
        assert found.flags == 1, "the default stream waits for it: it cannot be captured beside other users"
        found.capture, found.spoilt = [], False

    def _cuStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        found = self._get("stream", stream)
        if found.capture is None:
            raise Failure("CUDA_ERROR_INVALID_VALUE")
        work, found.capture = found.capture, None
        if found.spoilt:
            raise Failure("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        return self._take("template", work)

    def _cuGraphInstantiate(self, template: int, flags: int) -> int:  # noqa: N802
        return self._take("graph", list(self._get("template", template)))

    def _cuGraphDestroy(self, template: int) -> None:  # noqa: N802
        self._drop("template", template)

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        for work in self._get("graph", graph):
            self.enqueue(stream, work)

    def _cuGraphExecDestroy(self, graph: int) -> None:  # noqa: N802
        self._drop("graph", graph)

    def _cuMemGetInfo(self) -> tuple[int, int]:  # noqa: N802
        self._current()
        total = self.gpus[0].memory if self.capacity is None else self.capacity
        return total - self.taken(), total

    def _current(self) -> None:
        if not self.stack:
            raise Failure("CUDA_ERROR_INVALID_CONTEXT")

    def _take(self, kind: str, thing: Any, handle: int | None = None) -> int:
        self._current()
        handle = next(self._handles) if handle is None else handle
        self.live[handle] = (kind, thing)
        return handle

    def _take_bytes(self, kind: str, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, RUBBISH, size)
        return self._take(kind, memory, ctypes.addressof(memory))

    def _drop(self, kind: str, handle: int) -> None:
        self._get(kind, handle)
        del self.live[int(handle)]

    def _get(self, kind: str, handle: int) -> Any:
        self._current()
        found, thing = self.live.get(int(handle), ("", None))
        if found != kind:
            raise Failure("CUDA_ERROR_INVALID_HANDLE")
        return thing

    def _copy(self, to: tuple[str, int], source: tuple[str, int], size: int, stream: int) -> None:
        def work() -> None:
            for kind, address in (to, source):
                if ctypes.sizeof(self._get(kind, address)) < size:
                    raise Failure("CUDA_ERROR_ILLEGAL_ADDRESS")
            ctypes.memmove(to[1], source[1], size)

        for kind, address in (to, source):
            self._get(kind, address)
        self.enqueue(stream, work)


def fake_cuda_python(machine: Machine, version: str) -> dict[str, ModuleType | None]:
    """Return what cuda-python ``version`` ('cuda-python-13.5.0') puts into sys.modules."""
    surface = json.loads(RECORD.read_text("utf-8"))[version]
    driver = ModuleType(surface["module"])
    attribute = IntEnum(
        "CUdevice_attribute",
        {"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75, "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76},
    )
    mode = IntEnum(
        "CUstreamCaptureMode", {"CU_STREAM_CAPTURE_MODE_GLOBAL": 0, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1}
    )

    def facts(name: str, *arguments: Any) -> Any:
        if name == "cuDeviceGetAttribute":
            asked, device = arguments
            return machine.gpus[device].capability[int(asked) - 75]
        if name == "cuDeviceGetName":
            return machine.gpus[arguments[1]].name.encode().ljust(arguments[0], b"\0")
        if name == "cuDeviceTotalMem":
            return machine.gpus[arguments[0]].memory
        return machine.call(name, *arguments)

    def make(name: str, parameters: list[str]) -> Callable[..., tuple[Any, ...]]:
        def function(*arguments: Any) -> tuple[Any, ...]:
            if len(arguments) != len(parameters):
                raise TypeError(f"{name}() takes {parameters}")
            try:
                answer = facts(name, *arguments)
            except Failure as failure:
                # As many values as it would have had.
                return (failure.status, None)
            values = () if answer is None else answer if isinstance(answer, tuple) else (answer,)
            return (CUresult.CUDA_SUCCESS, *values)

        return function

    for name, parameters in surface["functions"].items():
        setattr(driver, name, make(name, parameters))
    driver.__dict__.update(CUresult=CUresult, CUdevice_attribute=attribute, CUstreamCaptureMode=mode)
    driver.__dict__["cuGetErrorString"] = lambda status: (0, WORDS.get(status.name, "").encode())
    modules: dict[str, ModuleType | None] = {"pycuda": None, "pycuda.driver": None}
    *packages, name = surface["module"].split(".")
    for depth in range(len(packages)):
        modules[".".join(packages[: depth + 1])] = ModuleType(".".join(packages[: depth + 1]))
    modules[surface["module"]] = driver
    parent = modules[".".join(packages)]
    setattr(parent, name, driver)
    if len(packages) == 2:
        modules["cuda"].bindings = parent  # type: ignore[union-attr]
    else:
        modules["cuda.bindings"] = None
    return modules


class FakeLibrary:
    """The driver's own library, as pycuda's adapter calls it for graphs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:  # noqa: N802
        return self._status("cuStreamBeginCapture", None, stream.value, mode.value)

    def cuStreamEndCapture(self, stream: Any, template: Any) -> int:  # noqa: N802
        return self._status("cuStreamEndCapture", template, stream.value)

    def cuGraphInstantiateWithFlags(self, graph: Any, template: Any, flags: Any) -> int:  # noqa: N802
        return self._status("cuGraphInstantiate", graph, template.value, flags.value)

    def cuGraphDestroy(self, template: Any) -> int:  # noqa: N802
        return self._status("cuGraphDestroy", None, template.value)

    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:  # noqa: N802
        return self._status("cuGraphLaunch", None, graph.value, stream.value)

    def cuGraphExecDestroy(self, graph: Any) -> int:  # noqa: N802
        return self._status("cuGraphExecDestroy", None, graph.value)

    def cuGetErrorName(self, status: Any, name: Any) -> int:  # noqa: N802
        name._obj.value = CUresult(status.value).name.encode()
        return 0

    def _status(self, name: str, into: Any, *arguments: Any) -> int:
        try:
            answer = self._machine.call(name, *arguments)
        except Failure as failure:
            return int(failure.status)
        if into is not None:
            into._obj.value = answer
        return 0


def fake_pycuda(machine: Machine, version: str) -> dict[str, ModuleType | None]:
    """Return what pycuda ``version`` ('pycuda-2026.1') puts into sys.modules; its graphs are in FakeLibrary."""
    surface = json.loads(RECORD.read_text("utf-8"))[version]
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    package.__dict__.update(VERSION_TEXT=version.removeprefix("pycuda-"), driver=driver)

    class Error(Exception):
        pass

    errors = {name: type(name, (Error,), {}) for name in ("MemoryError", "LogicError", "LaunchError", "RuntimeError")}

    def call(name: str, *arguments: Any) -> Any:
        try:
            return machine.call(name, *arguments)
        except Failure as failure:
            kind = errors["MemoryError" if "OUT_OF_MEMORY" in failure.status.name else "LogicError"]
            raise kind(f"{name} failed: {WORDS.get(failure.status.name, failure.status.name)}") from None

    def destroy(context: int, name: str, handle: int) -> None:
        """As pycuda's destructors: in the context in which it was made."""
        machine.stack.append(context)
        call(name, handle)
        machine.stack.pop()

    class Context:
        def __init__(self, handle: int) -> None:
            self._handle = handle

        def detach(self) -> None:
            call("cuDevicePrimaryCtxRelease", self._handle - 500)

        def push(self) -> None:
            call("cuCtxPushCurrent", self._handle)

        @staticmethod
        def pop() -> None:
            call("cuCtxPopCurrent")

    class Device:
        def __init__(self, number: int) -> None:
            self._number = call("cuDeviceGet", number)

        @staticmethod
        def count() -> int:
            return int(call("cuDeviceGetCount"))

        def name(self) -> str:
            return machine.gpus[self._number].name

        def compute_capability(self) -> tuple[int, int]:
            return machine.gpus[self._number].capability

        def total_memory(self) -> int:
            return machine.gpus[self._number].memory

        def retain_primary_context(self) -> Context:
            return Context(call("cuDevicePrimaryCtxRetain", self._number))

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self.handle = call("cuStreamCreate", flags)
            self._context = machine.stack[-1]

        def synchronize(self) -> None:
            call("cuStreamSynchronize", self.handle)

        def __del__(self) -> None:
            if hasattr(self, "handle"):
                destroy(self._context, "cuStreamDestroy", self.handle)

    class Event:
        def __init__(self, flags: int = 0) -> None:
            self._handle = call("cuEventCreate", flags)
            self._context = machine.stack[-1]

        def record(self, stream: Stream) -> Event:
            call("cuEventRecord", self._handle, stream.handle)
            return self

        def synchronize(self) -> Event:
            call("cuEventSynchronize", self._handle)
            return self

        def time_since(self, event: Event) -> float:
            return float(call("cuEventElapsedTime", event._handle, self._handle))

        def __del__(self) -> None:
            if hasattr(self, "_handle"):
                destroy(self._context, "cuEventDestroy", self._handle)

    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            call("cuMemFree", self._address)

    class PagelockedHostAllocation:
        def __init__(self, address: int, shape: tuple[int, ...], dtype: Any) -> None:
            self._address = address
            interface = {"shape": shape, "typestr": np.dtype(dtype).str, "data": (address, False), "version": 3}
            self.__array_interface__ = interface

        def free(self) -> None:
            call("cuMemFreeHost", self._address)

    def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        address = call("cuMemHostAlloc", shape * np.dtype(dtype).itemsize, mem_flags)
        return np.asarray(PagelockedHostAllocation(address, (shape,), dtype))

    def memcpy_htod_async(dest: Any, src: Any, stream: Stream) -> None:
        call("cuMemcpyHtoDAsync", int(dest), src.ctypes.data, src.nbytes, stream.handle)

    def memcpy_dtoh_async(dest: Any, src: Any, stream: Stream) -> None:
        call("cuMemcpyDtoHAsync", dest.ctypes.data, int(src), dest.nbytes, stream.handle)

    has = {
        "init": lambda: call("cuInit", 0),
        "get_driver_version": lambda: call("cuDriverGetVersion"),
        "mem_get_info": lambda: call("cuMemGetInfo"),
        "mem_alloc": lambda size: DeviceAllocation(call("cuMemAlloc", size)),
        "pagelocked_empty": pagelocked_empty,
        "memcpy_htod_async": memcpy_htod_async,
        "memcpy_dtoh_async": memcpy_dtoh_async,
    }
    classes = (Context, Device, Stream, Event, DeviceAllocation, PagelockedHostAllocation)
    for cls in classes:
        lacking = {name for name in vars(cls) if not name.startswith("_")} - set(surface["classes"][cls.__name__])
        assert not lacking, f"{version}: {cls.__name__} has no {', '.join(lacking)}"
    assert set(has) <= set(surface["functions"]), f"{version} lacks {set(has) - set(surface['functions'])}"
    driver.__dict__.update(has, Error=Error, **errors, **{cls.__name__: cls for cls in classes})
    return {"pycuda": package, "pycuda.driver": driver, "cuda": None, "cuda.bindings": None, "cuda.cuda": None}
