"""The little of CUDA's driver API that the runtime needs, through pycuda or cuda-python: one protocol, two adapters.

pycuda where it is installed (it is built from source, as people do on Jetsons and in programs that use it already),
else cuda-python, which has wheels everywhere. ``EMADEPLOY_CUDA=cuda-python`` (or pycuda) takes that one alone.

Streams, buffers, events and graphs are what the package has for them; nothing but its own adapter looks inside.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing, DeviceError, SpecError

#: Package -> "module:class" of its adapter, in order of preference.
ADAPTERS = {
    "pycuda": "emadeploy.runtime.trt.pycuda:PyCuda",
    "cuda-python": "emadeploy.runtime.trt.cuda:CudaPython",
}
CHOICE = "EMADEPLOY_CUDA"
NO_DRIVER = (
    "no NVIDIA driver on this machine: libcuda.so.1 is not found. Install the driver (a Jetson has it from JetPack; "
    "a container needs --runtime nvidia or --gpus all), or export for a target that runs on the CPU: openvino-int8, "
    "onnxruntime-int8"
)
Bytes = npt.NDArray[np.uint8]


class CudaError(DeviceError):
    """A call of CUDA that failed: ``call``, and the ``name`` of the error as CUDA has it, or pycuda's words for it."""

    def __init__(self, call: str, name: str, words: str = "") -> None:
        super().__init__(f"CUDA: {call} failed with {name}" + (f" ({words})" if words else ""))
        self.call = call
        self.name = name

    @property
    def out_of_memory(self) -> bool:
        """Whether there was not enough memory."""
        return "OUT_OF_MEMORY" in self.name or "out of memory" in self.name


class Driver(Protocol):
    """CUDA's driver API. Every method raises CudaError where the call fails.

    All after ``push`` need a current context: they come between ``push`` and ``pop``, on any thread.
    """

    package: str
    version: str  # of the package

    def start(self) -> None:
        """Start CUDA in this process; any number of times."""

    def cuda_version(self) -> int:
        """Return the newest CUDA that the driver knows: 12060 for 12.6."""

    def count(self) -> int:
        """Return how many GPUs there are."""

    def facts(self, index: int) -> tuple[str, tuple[int, int], int]:
        """Return name, compute capability (major, minor) and bytes of memory of a GPU."""

    def retain(self, index: int) -> Any:
        """Return the primary context of a GPU, which torch, TensorRT and others in this process share."""

    def release(self, index: int, context: Any) -> None:
        """Give up what ``retain`` returned; the context ends when nobody in the process retains it."""

    def push(self, context: Any) -> None:
        """Make ``context`` the current one of this thread."""

    def pop(self) -> None:
        """Give this thread back the context that it had before."""

    def make_stream(self) -> Any:
        """Return a new stream that does not wait for the default one."""

    def destroy_stream(self, stream: Any) -> None:
        """Destroy a stream, and with it the last name of it that the caller has."""

    def handle(self, stream: Any) -> int:
        """Return what other libraries call the stream."""

    def synchronize(self, stream: Any) -> None:
        """Wait until all work of the stream is done."""

    def allocate(self, size: int) -> Any:
        """Return a buffer of ``size`` bytes on the GPU."""

    def address(self, buffer: Any) -> int:
        """Return the address of a buffer on the GPU."""

    def free(self, buffer: Any) -> None:
        """Free a buffer."""

    def allocate_pinned(self, size: int) -> tuple[Any, Bytes]:
        """Return page-locked memory of the host, and its ``size`` bytes as an array."""

    def free_pinned(self, memory: Any) -> None:
        """Free page-locked memory; arrays over it must not be touched after that."""

    def upload(self, buffer: Any, pinned: Bytes, stream: Any) -> None:
        """Copy pinned bytes to the GPU as work of the stream."""

    def download(self, pinned: Bytes, buffer: Any, stream: Any) -> None:
        """Copy from the GPU to pinned bytes as work of the stream."""

    def make_event(self) -> Any:
        """Return a new event, with times."""

    def destroy_event(self, event: Any) -> None:
        """Destroy an event, and with it the last name of it that the caller has."""

    def record(self, event: Any, stream: Any) -> None:
        """Let the event happen when the work given to the stream so far is done."""

    def milliseconds(self, first: Any, second: Any) -> float:
        """Wait for the second event and return the time between both."""

    def begin_capture(self, stream: Any) -> None:
        """Have the stream write down, and not do, the work that it is given."""

    def end_capture(self, stream: Any) -> Any:
        """Return what the stream has written down since, as a graph that can be launched."""

    def launch(self, graph: Any, stream: Any) -> None:
        """Do the work of a graph as work of the stream."""

    def destroy_graph(self, graph: Any) -> None:
        """Destroy a graph."""

    def memory_info(self) -> tuple[int, int]:
        """Return the free and the total bytes of the GPU's memory."""


def load_driver(package: str | None = None) -> Driver:
    """Return the driver API through ``package``, 'pycuda' or 'cuda-python'; by default what $EMADEPLOY_CUDA says, else
    the first of the two that is installed.

    Raises SpecError for another name, BackendMissing where it is not installed or broken, DeviceError where there is
    no NVIDIA driver.
    """
    wanted = package or os.environ.get(CHOICE) or None
    if wanted is not None and wanted not in ADAPTERS:
        raise SpecError(f"{CHOICE}={wanted!r} is unknown; known: {', '.join(ADAPTERS)}")
    for name in [wanted] if wanted else ADAPTERS:
        driver = _load(name)
        if driver is not None:
            return driver
    if not _has_driver():
        raise DeviceError(NO_DRIVER)  # rather than have a package installed that has nothing to work with
    extra = {"pycuda": "pycuda", "cuda-python": "tensorrt"}[wanted or "cuda-python"]
    others = "" if wanted else " (or 'emadeploy[pycuda]', which is built here)"
    raise BackendMissing(
        f"memory of the GPU needs {wanted or 'pycuda or cuda-python'}, which is not installed: "
        f"pip install 'emadeploy[{extra}]'{others}"
    )


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@cache
def _load(package: str) -> Driver | None:
    """Return the adapter of ``package``; ``None`` where it is not installed."""
    module, name = ADAPTERS[package].split(":")
    try:
        return getattr(importlib.import_module(module), name)()  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == module.split(".")[-1]:
            return None
        raise BackendMissing(f"{package} is installed without {error.name}: install it again") from None
    except ImportError as error:
        # pycuda is linked with the driver's library; a wheel of another interpreter, or of another numpy.
        if "libcuda" in str(error):
            raise DeviceError(NO_DRIVER) from None
        other = next(name for name in ADAPTERS if name != package)
        raise BackendMissing(
            f"{package} is installed, but its import fails: {error}. Install it again, uninstall it, or set "
            f"{CHOICE}={other}"
        ) from None
