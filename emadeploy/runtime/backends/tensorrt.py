"""TensorRT and TensorRT for RTX: fp32, fp16 and int8 on NVIDIA's GPUs, from Jetsons to servers.

A frame goes through page-locked memory of the host, into buffers of the GPU, through the network and back, as one CUDA
graph on a stream of its own. All of it is allocated once. An artifact that is not compiled yet is compiled at its first
load; an engine of another GPU or another TensorRT is refused, never replaced in silence.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import DeviceError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.queue import Answers, InferQueue, Inputs
from emadeploy.runtime.session import Array, check_signature
from emadeploy.runtime.trt.callbacks import make_profiler
from emadeploy.runtime.trt.copies import copy_times
from emadeploy.runtime.trt.first_load import compile_once
from emadeploy.runtime.trt.library import Library, load_library
from emadeploy.runtime.trt.memory import Arena, Buffer, Gpu, Graph, Held, open_gpu
from emadeploy.runtime.trt.record import RECORD_NAME, EngineRecord
from emadeploy.runtime.trt.values import IoTensor

#: '1': without a CUDA graph loading fails; '0': none is made; unset: one is made where TensorRT can.
GRAPH_CHOICE = "EMADEPLOY_CUDA_GRAPH"
#: Runs before a graph is made: TensorRT allocates and chooses during the first one, which no graph may hold.
_WARM_UPS = 2
_MIB = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """An engine on its GPU, held by ``arena``; ``plan`` is its file, ``graphs`` whether CUDA graphs are to be made."""

    library: Library
    engine: Held
    arena: Arena
    gpu: Gpu
    tensors: tuple[IoTensor, ...]
    plan: Path
    graphs: bool | None


class TensorRtSession:
    """A compiled engine on one GPU. Any number of threads may call :meth:`run`: each has an execution context."""

    def __init__(self, loaded: _Loaded) -> None:
        self._loaded: _Loaded | None = loaded
        self._lock = threading.Lock()
        self._making = threading.Lock()
        first = _Slot(loaded)
        self._graph = first.graph_state
        self._idle = [first]

    def run(self, inputs: Inputs) -> Answers:
        """Return the outputs by name. Raises DeviceError where CUDA or TensorRT fails, or memory for another thread's
        execution context is not there."""
        slot = self._take()
        try:
            slot.start(inputs)
            return slot.wait()
        finally:
            self._give(slot)

    def queue(self, depth: int = 2) -> InferQueue:
        """Return a queue that holds up to ``depth`` frames in flight; while the GPU computes one, others are copied.

        Each takes an execution context with its buffers. Raises DeviceError where there is no memory for them.
        """
        loaded = self._loaded
        assert loaded is not None, "queue after close"
        return InferQueue(lambda: _Slot(loaded), depth)

    def close(self) -> None:
        """Free the engine and its memory. A queue that is still open keeps it until it is closed too."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._loaded = None
        for slot in idle:
            slot.close()

    def describe(self) -> dict[str, str | int]:
        """Return engine, version, device, GPU, driver, the package of its 'memory', 'cuda_graph' (yes, or why not) and
        'context_mb', what each frame in flight takes for activations."""
        loaded = self._loaded
        assert loaded is not None, "describe after close"
        return {
            "engine": loaded.library.name,
            "version": loaded.library.version_text,
            "device": f"gpu:{loaded.gpu.index}",
            **loaded.gpu.describe(),
            "cuda_graph": self._graph,
            "context_mb": loaded.library.activation_bytes(loaded.engine.value) // _MIB,
        }

    def copies(self) -> dict[str, float]:
        """Return the milliseconds of a run that are copies, 'copy_in' and 'copy_out': see `trt.copies`."""
        assert self._loaded is not None, "copies after close"
        return copy_times(self._loaded.gpu, self._loaded.tensors)

    def _take(self) -> _Slot:
        with self._lock:
            loaded = self._loaded
            assert loaded is not None, "run after close"
            if self._idle:
                return self._idle.pop()
        with self._making:
            return _Slot(loaded)

    def _give(self, slot: _Slot) -> None:
        with self._lock:
            if self._loaded is not None:
                self._idle.append(slot)
                return
        slot.close()


class _Slot:
    """An execution context with its stream, and per tensor a pinned array and a buffer of the GPU."""

    def __init__(self, loaded: _Loaded) -> None:
        self._loaded = loaded
        self._arena = Arena(loaded.gpu)
        self._arrays: dict[str, Array] = {}
        self._buffers: dict[str, Buffer] = {}
        self._graph: Graph | None = None
        self.graph_state = "no: not asked for"
        try:
            with loaded.gpu.current():
                self._context = self._arena.hold(_context(loaded))
                self._stream = self._arena.stream()
                for tensor in loaded.tensors:
                    self._allocate(tensor)
                self._warm_up()
                if loaded.graphs is not False:
                    self._capture()
        except BaseException:
            self.close()
            raise

    def start(self, inputs: Inputs) -> None:
        for tensor in self._loaded.tensors:
            if tensor.is_input:
                array = inputs[tensor.name]
                if (array.shape, array.dtype.name) != (tensor.shape, tensor.dtype):
                    raise DeviceError(
                        f"input {tensor.name!r} is {array.dtype.name} {array.shape}; the engine takes {tensor.dtype} "
                        f"{tensor.shape}"
                    )
                np.copyto(self._arrays[tensor.name], array)
        with self._loaded.gpu.current():
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._work()

    def wait(self) -> Answers:
        with self._loaded.gpu.current():
            self._stream.synchronize()
        # The pinned arrays are the next frame's; what is returned is the caller's.
        return {tensor.name: self._arrays[tensor.name].copy() for tensor in self._loaded.tensors if not tensor.is_input}

    def attach(self, profiler: Any) -> None:
        self._context.value.profiler = profiler

    def close(self) -> None:
        self._arrays.clear()
        self._arena.close()

    def _allocate(self, tensor: IoTensor) -> None:
        array = self._arena.pinned(tensor.shape, tensor.dtype)
        array.fill(0)
        buffer = self._arena.buffer(array.nbytes)
        self._arrays[tensor.name], self._buffers[tensor.name] = array, buffer
        if not self._context.value.set_tensor_address(tensor.name, buffer.address):
            raise self._failed(f"refuses an address for {tensor.name!r}")

    def _work(self) -> None:
        """Give the stream all that a frame needs: copies in, the network, copies out."""
        for tensor in self._loaded.tensors:
            if tensor.is_input:
                self._stream.upload(self._buffers[tensor.name], self._arrays[tensor.name])
        if not self._context.value.execute_async_v3(self._stream.handle):
            with suppress(DeviceError):
                self._stream.synchronize()  # the copies read the pinned arrays, which the next frame overwrites
            raise self._failed("failed while running")
        for tensor in self._loaded.tensors:
            if not tensor.is_input:
                self._stream.download(self._arrays[tensor.name], self._buffers[tensor.name])

    def _warm_up(self) -> None:
        for _ in range(_WARM_UPS):
            self._work()
        self._stream.synchronize()

    def _capture(self) -> None:
        """Make the graph; where CUDA or TensorRT cannot, go on without one and say so, unless it was asked for."""
        try:
            self._graph = self._arena.graph(self._stream, self._work)
            self._graph.launch(self._stream)
            self._stream.synchronize()
            self.graph_state = "yes"
        except DeviceError as error:
            if self._loaded.graphs:
                raise DeviceError(f"{GRAPH_CHOICE}=1 asks for a CUDA graph, and none can be made: {error}") from None
            _log.warning("%s: no CUDA graph, frames cost the CPU more: %s", self._loaded.plan, error)
            self._graph = None
            self.graph_state = f"no: {error}"

    def _failed(self, what: str) -> DeviceError:
        library = self._loaded.library
        return DeviceError(f"{library.title} {library.version_text} {what}: {library.complaint()}")


def open_session(directory: Path, manifest: Manifest, *, threads: int, device: str | None) -> TensorRtSession:
    """Load the engine of an artifact, compiled now where it is not yet: see `emadeploy.runtime.session.OpenSession`.

    ``device`` is 'gpu' or 'gpu:1'; ``threads`` is for engines on a CPU. The digest of the engine, which is native code,
    is checked before TensorRT sees it. Raises DeviceError also where the engine is another GPU's or another TensorRT's.
    """
    return TensorRtSession(_load(directory, manifest, device, _graph_choice()))


def profile_runs(
    directory: Path, manifest: Manifest, inputs: Inputs, *, device: str | None, runs: int
) -> tuple[list[Mapping[str, Any]], dict[str, list[float]]]:
    """Run an artifact ``runs`` times under TensorRT's profiler: the layers that its inspector tells of, and the
    milliseconds of each run by the layer's name, in the order in which they ran. Raises as :func:`open_session` does.
    """
    loaded = _load(directory, manifest, device, graphs=False)
    with closing(_Slot(loaded)) as slot, loaded.gpu.current():
        profiler = make_profiler(loaded.library.module)
        slot.attach(profiler)
        for _ in range(runs):
            slot.start(inputs)
            slot.wait()
        return loaded.library.layers(loaded.engine.value), profiler.times


def _load(directory: Path, manifest: Manifest, device: str | None, graphs: bool | None) -> _Loaded:
    index = _gpu_index(device)
    gpu = open_gpu(index)
    library = load_library(manifest.engine)
    if not (directory / RECORD_NAME).exists():
        compile_once(directory, manifest, library, gpu)
    record = EngineRecord.read(directory)
    record.check(directory, manifest, gpu.device, library)
    plan = record.plan_bytes(directory)
    arena = Arena(gpu)
    with gpu.current():
        engine = arena.hold(library.deserialize(plan, record.settings.get("dla")))
        tensors = library.tensors(engine.value)
    path = directory / record.plan
    found = ([tensor.signature for tensor in tensors if tensor.is_input is given] for given in (True, False))
    check_signature(str(path), manifest, *found)
    return _Loaded(library, engine, arena, gpu, tensors, path, graphs)


def _gpu_index(device: str | None) -> int:
    """Return 1 for 'gpu:1'; raises DeviceError where TensorRT does not run on such a device."""
    match = re.fullmatch(r"gpu(?::(\d+))?", device or "gpu")
    if match is None:
        advice = "; for the CPU export for openvino-int8 or onnxruntime-int8" if device == "cpu" else ""
        raise DeviceError(f"device {device!r}: TensorRT runs on NVIDIA's GPUs alone, 'gpu' or 'gpu:1'{advice}")
    return int(match[1] or 0)


def _graph_choice() -> bool | None:
    text = os.environ.get(GRAPH_CHOICE, "")
    if text not in ("", "0", "1"):
        raise SpecError(f"{GRAPH_CHOICE}={text!r} is none of '1' (an error without one), '0' (none), '' (where it can)")
    return bool(int(text)) if text else None


def _context(loaded: _Loaded) -> Any:
    """Return a new execution context; raises DeviceError, which says how much memory it takes where that is missing."""
    try:
        return loaded.library.context(loaded.engine.value)
    except DeviceError as error:
        needed, free = loaded.library.activation_bytes(loaded.engine.value), loaded.gpu.free_bytes()
        if free >= needed:
            raise
        raise DeviceError(
            f"out of memory on {loaded.gpu.device.name}: an execution context takes {needed / _MIB:.0f} MiB, "
            f"{free / _MIB:.0f} MiB are free. Close other programs or artifacts on it, keep fewer frames in flight, or "
            f"export for a smaller --size ({error})"
        ) from None
