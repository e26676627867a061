"""pycuda as the driver API.

Its context stack is its own, so contexts are pushed and popped through it. It has no CUDA graphs in any version up to
2026.1: these go to the driver's library directly, which pycuda has already loaded.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pycuda
import pycuda.driver

from emadeploy.runtime.trt.cuda_driver import Bytes, CudaError

_cu: Any = pycuda.driver
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class PyCuda:
    """See :class:`emadeploy.runtime.trt.cuda_driver.Driver`."""

    package = "pycuda"

    def __init__(self) -> None:
        self.version: str = pycuda.VERSION_TEXT

    def start(self) -> None:
        _call("cuInit", _cu.init)

    def cuda_version(self) -> int:
        return int(_call("cuDriverGetVersion", _cu.get_driver_version))

    def count(self) -> int:
        return int(_call("cuDeviceGetCount", _cu.Device.count))

    def facts(self, index: int) -> tuple[str, tuple[int, int], int]:
        device = _call("cuDeviceGet", _cu.Device, index)
        major, minor = _call("cuDeviceComputeCapability", device.compute_capability)
        return device.name(), (int(major), int(minor)), int(_call("cuDeviceTotalMem", device.total_memory))

    def retain(self, index: int) -> Any:
        return _call("cuDevicePrimaryCtxRetain", _cu.Device(index).retain_primary_context)

    def release(self, index: int, context: Any) -> None:
        # Left to its destructor, it would be detached as if it were no primary context, with a warning on stderr.
        _call("cuDevicePrimaryCtxRelease", context.detach)

    def push(self, context: Any) -> None:
        _call("cuCtxPushCurrent", context.push)

    def pop(self) -> None:
        _call("cuCtxPopCurrent", _cu.Context.pop)

    def make_stream(self) -> Any:
        return _call("cuStreamCreate", _cu.Stream, _NON_BLOCKING)

    def destroy_stream(self, stream: Any) -> None:
        """Do nothing: pycuda destroys it when nobody holds it any more, which the caller sees to."""

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        _call("cuStreamSynchronize", stream.synchronize)

    def allocate(self, size: int) -> Any:
        return _call("cuMemAlloc", _cu.mem_alloc, size)

    def address(self, buffer: Any) -> int:
        return int(buffer)

    def free(self, buffer: Any) -> None:
        _call("cuMemFree", buffer.free)

    def allocate_pinned(self, size: int) -> tuple[Any, Bytes]:
        array = _call("cuMemHostAlloc", _cu.pagelocked_empty, size, np.uint8)
        return array.base, array

    def free_pinned(self, memory: Any) -> None:
        _call("cuMemFreeHost", memory.free)

    def upload(self, buffer: Any, pinned: Bytes, stream: Any) -> None:
        _call("cuMemcpyHtoDAsync", _cu.memcpy_htod_async, buffer, pinned, stream)

    def download(self, pinned: Bytes, buffer: Any, stream: Any) -> None:
        _call("cuMemcpyDtoHAsync", _cu.memcpy_dtoh_async, pinned, buffer, stream)

    def make_event(self) -> Any:
        return _call("cuEventCreate", _cu.Event)

    def destroy_event(self, event: Any) -> None:
        """Do nothing: pycuda destroys it when nobody holds it any more, which the caller sees to."""

    def record(self, event: Any, stream: Any) -> None:
        _call("cuEventRecord", event.record, stream)

    def milliseconds(self, first: Any, second: Any) -> float:
        _call("cuEventSynchronize", second.synchronize)
        return float(_call("cuEventElapsedTime", second.time_since, first))

    def begin_capture(self, stream: Any) -> None:
        # Of this thread alone: what others do meanwhile, as allocating, neither fails nor spoils it.
        _library_call("cuStreamBeginCapture_v2", _pointer(self.handle(stream)), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: Any) -> Any:
        template, graph = ctypes.c_void_p(), ctypes.c_void_p()
        _library_call("cuStreamEndCapture", _pointer(self.handle(stream)), ctypes.byref(template))
        try:
            _library_call("cuGraphInstantiateWithFlags", ctypes.byref(graph), template, ctypes.c_ulonglong(0))
        finally:
            _library_call("cuGraphDestroy", template)
        return graph

    def launch(self, graph: Any, stream: Any) -> None:
        _library_call("cuGraphLaunch", graph, _pointer(self.handle(stream)))

    def destroy_graph(self, graph: Any) -> None:
        _library_call("cuGraphExecDestroy", graph)

    def memory_info(self) -> tuple[int, int]:
        free, total = _call("cuMemGetInfo", _cu.mem_get_info)
        return int(free), int(total)


def _call(name: str, function: Any, *arguments: Any) -> Any:
    """Return what ``function`` of pycuda answers; ``name`` is CUDA's for it."""
    try:
        return function(*arguments)
    except _cu.Error as error:
        # "cuMemAlloc failed: out of memory": pycuda keeps the words of the error alone.
        call, _, words = str(error).partition(" failed: ")
        raise CudaError(call if words else name, words or str(error)) from None


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _library_call(function: str, *arguments: Any) -> None:
    try:
        status = getattr(_library(), function)(*arguments)
    except AttributeError:
        raise CudaError(function, "CUDA_ERROR_NOT_FOUND", "the driver has no such function: it is too old") from None
    if status != 0:
        name = ctypes.c_char_p()
        _library().cuGetErrorName(ctypes.c_int(status), ctypes.byref(name))
        raise CudaError(function, name.value.decode() if name.value else f"error {status}")


def _pointer(handle: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(handle)
