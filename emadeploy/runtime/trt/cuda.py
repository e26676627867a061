"""cuda-python as the driver API: 12.x and 13.x, whose functions are the same and whose module has moved."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

try:
    from cuda.bindings import driver
except ModuleNotFoundError:  # older than 12.8
    import cuda.cuda as driver

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.trt.cuda_driver import NO_DRIVER, Bytes, CudaError

_cu: Any = driver
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class CudaPython:
    """See :class:`emadeploy.runtime.trt.cuda_driver.Driver`."""

    package = "cuda-python"

    def __init__(self) -> None:
        self.version = _version()

    def start(self) -> None:
        try:
            _call("cuInit", 0)
        except RuntimeError as error:
            # The library is opened at the first call. RuntimeError is also the base of the newer package's own error.
            if "libcuda" in str(error) or "NVIDIA driver" in str(error):
                raise DeviceError(NO_DRIVER) from None
            raise DeviceError(f"the NVIDIA driver is too old for cuda-python {self.version}: {error}") from None

    def cuda_version(self) -> int:
        return int(_call("cuDriverGetVersion"))

    def count(self) -> int:
        return int(_call("cuDeviceGetCount"))

    def facts(self, index: int) -> tuple[str, tuple[int, int], int]:
        device = _call("cuDeviceGet", index)
        attribute = _cu.CUdevice_attribute
        major = _call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
        minor = _call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
        name = _call("cuDeviceGetName", 256, device).split(b"\0")[0].decode()
        return name, (int(major), int(minor)), int(_call("cuDeviceTotalMem", device))

    def retain(self, index: int) -> Any:
        return _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", index))

    def release(self, index: int, context: Any) -> None:
        _call("cuDevicePrimaryCtxRelease", _call("cuDeviceGet", index))

    def push(self, context: Any) -> None:
        _call("cuCtxPushCurrent", context)

    def pop(self) -> None:
        _call("cuCtxPopCurrent")

    def make_stream(self) -> Any:
        return _call("cuStreamCreate", _NON_BLOCKING)

    def destroy_stream(self, stream: Any) -> None:
        _call("cuStreamDestroy", stream)

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        _call("cuStreamSynchronize", stream)

    def allocate(self, size: int) -> Any:
        return _call("cuMemAlloc", size)

    def address(self, buffer: Any) -> int:
        return int(buffer)

    def free(self, buffer: Any) -> None:
        _call("cuMemFree", buffer)

    def allocate_pinned(self, size: int) -> tuple[Any, Bytes]:
        address = int(_call("cuMemHostAlloc", size, 0))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, memory: Any) -> None:
        _call("cuMemFreeHost", memory)

    def upload(self, buffer: Any, pinned: Bytes, stream: Any) -> None:
        _call("cuMemcpyHtoDAsync", buffer, pinned.ctypes.data, pinned.nbytes, stream)

    def download(self, pinned: Bytes, buffer: Any, stream: Any) -> None:
        _call("cuMemcpyDtoHAsync", pinned.ctypes.data, buffer, pinned.nbytes, stream)

    def make_event(self) -> Any:
        return _call("cuEventCreate", 0)

    def destroy_event(self, event: Any) -> None:
        _call("cuEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        _call("cuEventRecord", event, stream)

    def milliseconds(self, first: Any, second: Any) -> float:
        _call("cuEventSynchronize", second)
        return float(_call("cuEventElapsedTime", first, second))

    def begin_capture(self, stream: Any) -> None:
        # Of this thread alone: what others do meanwhile, as allocating, neither fails nor spoils it.
        _call("cuStreamBeginCapture", stream, _cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)

    def end_capture(self, stream: Any) -> Any:
        template = _call("cuStreamEndCapture", stream)
        try:
            return _call("cuGraphInstantiate", template, 0)
        finally:
            _call("cuGraphDestroy", template)

    def launch(self, graph: Any, stream: Any) -> None:
        _call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        _call("cuGraphExecDestroy", graph)

    def memory_info(self) -> tuple[int, int]:
        free, total = _call("cuMemGetInfo")
        return int(free), int(total)


def _call(function: str, *arguments: Any) -> Any:
    """Return what ``function`` answers beside its status: nothing, one value or several."""
    status, *values = getattr(_cu, function)(*arguments)
    if int(status) != 0:
        raise CudaError(function, status.name, _words(status))
    return values[0] if len(values) == 1 else tuple(values)


def _words(status: Any) -> str:
    known, words = _cu.cuGetErrorString(status)
    return words.decode() if int(known) == 0 and words else ""


def _version() -> str:
    # cuda-python is an empty package over cuda-bindings, which torch brings alone; before 12.8 it was the code itself.
    for package in ("cuda-bindings", "cuda-python"):
        with suppress(PackageNotFoundError):
            return version(package)
    return "unknown"
