"""OpenVINO: int8, bf16 and fp32 on Intel's, AMD's and Arm's CPUs; Intel's GPUs where their driver is."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from emadeploy.contract.errors import ArtifactError, DeviceError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.blobs import BlobCache, blob_key
from emadeploy.runtime.machine import cpu_flags, cpu_model, usable_cores
from emadeploy.runtime.queue import Answers, InferQueue, Inputs
from emadeploy.runtime.session import Signature, check_signature, check_types

VERSION: str = ov.get_version().split("-")[0]
#: The process's one core, which is never let go of. Its CPU plugin gives the thread that loads it a stack for signals,
#: and unmaps that when it ends. Where it ends in another thread, or where two do not end in the reverse order, OpenVINO
#: 2026.4 leaves the thread with a stack that is gone: the next signal, a Ctrl-C that Python handles, is a SIGSEGV.
CORE = ov.Core()
#: Layers that do the arithmetic: what a target's precision is about.
COMPUTE = frozenset({"Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected"})
#: What manifests call a precision -> OpenVINO's hint, and the capability that a device must have for it.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8", "i32": "int32", "i64": "int64"}


@dataclass(frozen=True)
class Ran:
    """A layer of a compiled network: its name in there, its kind, the precision that it runs in, the nodes in it.

    ``microseconds`` is its mean time per run; ``None`` where it does not run (constants, views) or nothing measured.
    ``feeds``: the position in the list of the layer whose output it takes first; ``None`` where it takes none.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    microseconds: float | None
    feeds: int | None


class OpenVinoSession:
    """A compiled network on one device, one frame at a time; with :meth:`queue`, several in flight."""

    def __init__(self, compiled: Any, tensors: Collection[str], device: str, origin: str) -> None:
        self._compiled: Any = compiled
        self._tensors = tensors
        self._slot: _Slot | None = _Slot(compiled, tensors)
        self._device = device
        self._origin = origin

    def run(self, inputs: Inputs) -> Answers:
        """Return the outputs by name. Raises DeviceError where OpenVINO fails."""
        assert self._slot is not None, "run after close"
        self._slot.start(inputs)
        return self._slot.wait()

    def queue(self, depth: int = 2) -> InferQueue:
        """Return a queue that holds up to ``depth`` frames in flight; its answers equal those of :meth:`run`."""
        assert self._compiled is not None, "queue after close"
        compiled, tensors = self._compiled, self._tensors
        return InferQueue(lambda: _Slot(compiled, tensors), depth)

    def close(self) -> None:
        """Free the network. A queue that is still open keeps it until it is closed too."""
        self._slot = self._compiled = None

    def describe(self) -> dict[str, str | int]:
        """Return engine, version, device, threads, streams, what is not int8 ('rest') and whence it was 'loaded'."""
        assert self._compiled is not None, "describe after close"
        facts: dict[str, str | int] = {"engine": "openvino", "version": VERSION, "device": self._device}
        if self._device == "cpu":
            facts["threads"] = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        rest = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return facts | {
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "rest": _PRECISIONS.get(rest, rest),
            "loaded": self._origin,
        }


class _Slot:
    """An infer request. Nothing is copied on its way in or out: OpenVINO reads and writes the arrays themselves."""

    def __init__(self, compiled: Any, tensors: Collection[str]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [signature(port, tensors)[0] for port in compiled.inputs]
        self._outputs = [signature(port, tensors) for port in compiled.outputs]
        self._in_use: list[Any] = []
        self._answers: dict[str, Any] = {}

    def start(self, inputs: Inputs) -> None:
        try:
            # OpenVINO wraps writeable arrays alone, although it does not write to inputs.
            self._in_use = [np.require(inputs[name], requirements=["C", "W"]) for name in self._inputs]
            for index, array in enumerate(self._in_use):
                self._request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
            # Fresh memory for each run: the answers of the last one belong to whoever has them.
            self._answers = {name: np.empty(shape, dtype) for name, shape, dtype in self._outputs}
            for index, array in enumerate(self._answers.values()):
                self._request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
            self._request.start_async()
        except RuntimeError as error:
            raise _failed(error) from None

    def wait(self) -> Answers:
        try:
            self._request.wait()
        except RuntimeError as error:
            raise _failed(error) from None
        finally:
            self._in_use = []
        answers, self._answers = self._answers, {}
        return answers


def open_session(directory: Path, manifest: Manifest, *, threads: int, device: str | None) -> OpenVinoSession:
    """Load the network of an artifact; see :class:`emadeploy.runtime.session.OpenSession`.

    ``device`` is 'cpu', or another of OpenVINO's: 'gpu', 'gpu.1'. Refuses a device that does not run what the manifest
    promises, and one where more layers than in its audit fall back to float.
    """
    device = device or "cpu"
    path = directory / manifest.engine_file
    check_device(device, (TARGETS[manifest.target][1], manifest.rest))
    if device == "cpu":
        check_types(manifest)
    settings = compile_settings(device, manifest.rest, threads)
    compiled, origin = _load(path, manifest, device, settings)
    tensors = frozenset(spec.name for spec in (*manifest.inputs, *manifest.outputs))
    found = ([signature(port, tensors) for port in ports] for ports in (compiled.inputs, compiled.outputs))
    check_signature(str(path), manifest, *found)
    if device == "cpu":
        _check_precision(compiled, manifest)
    _return_free_memory()
    return OpenVinoSession(compiled, tensors, device, origin)


def check_device(device: str, precisions: tuple[str, ...]) -> None:
    """Raise DeviceError where OpenVINO has no such ``device`` here, or one that lacks one of ``precisions``."""
    present = list(CORE.available_devices)
    wanted = device.upper()
    if wanted not in present and not any(name.startswith(f"{wanted}.") for name in present):
        raise DeviceError(
            f"device {device!r}: OpenVINO {VERSION} finds {', '.join(map(str.lower, present)) or 'none'} here; "
            "take one of these, or install the driver of the other"
        )
    able = CORE.get_property(wanted, "OPTIMIZATION_CAPABILITIES")
    for precision in precisions:
        if _CAPABILITIES[precision] not in able:
            name = CORE.get_property(wanted, "FULL_DEVICE_NAME").strip()
            raise DeviceError(
                f"device {device!r} ({name}) has no {precision}; OpenVINO {VERSION} finds {', '.join(able)} there. "
                f"Take another device, or export for a target without {precision}"
            )


def capabilities() -> dict[str, list[str]]:
    """Return per device of this machine ('cpu', 'gpu') the precisions that OpenVINO has there, named as in targets."""
    found = {}
    for device in CORE.available_devices:
        able = CORE.get_property(device, "OPTIMIZATION_CAPABILITIES")
        found[device.lower()] = [precision for precision, name in _CAPABILITIES.items() if name in able]
    return found


def compile_network(path: Path, device: str, rest: str, threads: int, *, measure: bool = False) -> Any:
    """Compile the network at ``path`` as every session does; with ``measure``, its layers' times are taken.

    Raises ArtifactError where OpenVINO cannot.
    """
    settings = compile_settings(device, rest, threads) | ({"PERF_COUNT": True} if measure else {})
    try:
        # From the path, not from a model in hand: OpenVINO maps the weights and lets go of the graph itself.
        return CORE.compile_model(str(path), device.upper(), settings)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: OpenVINO {VERSION} cannot load it: {reason(error)}") from None


def layers(compiled: Any) -> list[Ran]:
    """Return the layers of a compiled network in their order, as OpenVINO reports them."""
    found: list[Ran] = []
    positions: dict[str, int] = {}
    for operation in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        time, precision = facts["execTimeMcs"], facts["runtimePrecision"]
        first = operation.input_value(0).get_node().get_friendly_name() if operation.get_input_size() else None
        positions[operation.get_friendly_name()] = len(found)
        found.append(
            Ran(
                name=operation.get_friendly_name(),
                kind=facts["layerType"],
                precision=_PRECISIONS.get(precision, precision),
                nodes=tuple(name for name in facts["originalLayersNames"].split(",") if name),
                microseconds=float(time) if time.isdigit() else None,
                feeds=positions.get(first) if first else None,
            )
        )
    return found


def signature(port: Any, tensors: Collection[str]) -> Signature:
    """Return name, shape and dtype of a port of a network; of several names, the one that is among ``tensors``.

    An output has several where the compiler found that its last operation does nothing, as the ReLU of a depth that
    cannot be negative: the tensor before it is then the output too.
    """
    ours = port.get_names() & set(tensors)
    name = ours.pop() if len(ours) == 1 else port.get_any_name()
    shape = port.get_partial_shape()
    extents: tuple[Any, ...] = tuple(port.get_shape()) if shape.is_static else tuple(map(str, shape))
    return name, extents, np.dtype(port.get_element_type().to_dtype()).name


def reason(error: Exception) -> str:
    """Return what OpenVINO's message says at its end, without the places in its sources where it went by."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from ", "Check "))]
    return (said or lines or [type(error).__name__])[-1]


def _failed(error: Exception) -> DeviceError:
    return DeviceError(f"OpenVINO {VERSION} failed while running: {reason(error)}")


def compile_settings(device: str, rest: str, threads: int) -> dict[str, Any]:
    """Return what every network is compiled with: OpenVINO's properties by name."""
    # Without the hint OpenVINO takes bf16 for fp32 wherever the device has it.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[rest]}
    if device.split(".")[0] == "cpu":
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        # Pinned threads take the first cores: of two engines on half of the cores each, both would take the same.
        settings |= {"ENABLE_CPU_PINNING": threads >= usable_cores()}
    return settings


def _load(path: Path, manifest: Manifest, device: str, settings: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the compiled network and whence it came, 'cache' or 'graph'.

    Measured on emanet-rooms in int8 (CTAL exact, 288 x 384, one thread): loaded in 0.4 s instead of 1.6 s from the
    cache, with a peak of memory of 300 MB instead of 316; fp32 318 instead of 331. 110 MB of that are the activations.
    """
    files = sorted((name, record.sha256) for name, record in manifest.files.items())
    key = blob_key(
        [files, ov.get_version(), cpu_model(), cpu_flags(), usable_cores(), device, sorted(settings.items())]
    )
    cache = BlobCache("openvino")
    blob = cache.read(key)
    if blob is not None:
        # Whole, and still foreign to this OpenVINO: compiled anew and replaced.
        with suppress(RuntimeError):
            return CORE.import_model(blob, device.upper(), dict(settings)), "cache"
    compiled = compile_network(path, device, manifest.rest, settings.get("INFERENCE_NUM_THREADS", 1))
    with suppress(RuntimeError):  # a device that exports nothing
        stream = io.BytesIO()
        compiled.export_model(stream)
        cache.write(key, stream.getvalue())
    return compiled, "graph"


def _check_precision(compiled: Any, manifest: Manifest) -> None:
    """Raise DeviceError where more layers run outside the target's precision than did when the artifact was built."""
    if manifest.audit is None:
        return
    built = manifest.audit.get("total", {}).get("compute", {})
    here = Counter(layer.precision for layer in layers(compiled) if layer.kind in COMPUTE)
    wanted = TARGETS[manifest.target][1]
    for precision, count in here.items():
        if precision != wanted and count > built.get(precision, 0):
            raise DeviceError(
                f"OpenVINO {VERSION} runs {count} layers in {precision} on this machine ({cpu_model()}), where "
                f"{built.get(precision, 0)} did on {manifest.audit.get('machine')}, on which the artifact was built "
                f"for {wanted}: export it on this machine, or for another target"
            )


def _return_free_memory() -> None:
    """Give what compiling has freed back to the system, before the first frame takes its own: 11 MB less at the peak.

    ENABLE_MMAP, CPU_RUNTIME_CACHE_CAPACITY and ENABLE_WEIGHTLESS made no difference to it.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)
