"""Compiling a portable artifact for the GPU of this machine, in a process of its own.

TensorRT takes gigabytes while it builds, which on a Jetson are the system's own: where they run out, Linux kills the
process. So another process builds, it is the one to be killed, and what happened is an error like any other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import ArtifactError, BackendMissing, BuildError, DeviceError, SpecError
from emadeploy.contract.manifest import TARGETS, Manifest, file_digest
from emadeploy.runtime.blobs import blob_key
from emadeploy.runtime.machine import is_alive, jetson_model
from emadeploy.runtime.trt.device import Device, here
from emadeploy.runtime.trt.layers import EngineLayer
from emadeploy.runtime.trt.library import TITLES, Library, load_library
from emadeploy.runtime.trt.process import Report, run_child
from emadeploy.runtime.trt.record import EngineKey, EngineRecord, plan_name
from emadeploy.runtime.trt.weak import NEWEST_OPSET

_MIB = 1 << 20
#: Bounds of the default workspace on a Jetson: what its convolutions need at least, and what they can use at most.
_LEAST, _MOST = 128 * _MIB, 4096 * _MIB


@dataclass(frozen=True)
class Options:
    """What a user says of a build; ``None`` and nothing: as suits the machine.

    ``workspace_mb``: MiB that a layer may use while it runs. ``optimization_level``: 0 to 5. ``dla``: a DLA core.
    ``compute_capabilities``: build ahead of time for GPUs of these, ('8.9', '12.0'), with TensorRT for RTX.
    Raises SpecError for a compute capability that is not written like 8.9.
    """

    workspace_mb: int | None = None
    optimization_level: int | None = None
    dla: int | None = None
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"\d+\.\d", capability):
                raise SpecError(f"compute capability {capability!r} is not written like 8.9")


@dataclass(frozen=True)
class Compiled:
    """An engine that is not yet the artifact's: its file, its record without an audit, and its layers."""

    made: Path
    record: EngineRecord
    layers: tuple[EngineLayer, ...]


def artifact_manifest(folder: Path) -> Manifest:
    """Return the manifest of the artifact in ``folder``; raises ArtifactError where it is not one for TensorRT."""
    manifest = Manifest.read(folder)
    if manifest.engine not in TITLES:
        raise ArtifactError(
            f"{folder} is for {manifest.engine} (target {manifest.target}) and needs no compiling: it runs as it is. "
            "`emadeploy build` takes artifacts of the targets trt-* and trt-rtx-*"
        )
    return manifest


def engine_key(manifest: Manifest, library: Library, options: Options) -> tuple[EngineKey, Device | None]:
    """Return the key of the engine that ``options`` ask for, and the GPU that it is for; ``None`` ahead of time.

    Raises DeviceError where a GPU is needed and none is here, or ``library`` cannot build for GPUs that are not;
    BackendMissing where nothing is installed that could look for one.
    """
    source = manifest.files[manifest.engine_file].sha256
    if options.compute_capabilities:
        if not library.builds_ahead:
            raise DeviceError(
                f"compute capability {', '.join(options.compute_capabilities)}: {library.title} builds for the GPU of "
                "this machine alone; TensorRT for RTX builds ahead of time: export for trt-rtx-*"
            )
        return EngineKey(library.name, library.version_text, source, options.compute_capabilities), None
    try:
        device = here()
    except (DeviceError, BackendMissing) as error:
        if not library.builds_ahead:
            raise
        raise type(error)(f"{error}. Without a GPU, build ahead of time: --compute-capability 8.9") from None
    return EngineKey.here(library, source, device), device


@contextmanager
def compiled(folder: Path, options: Options, report: Report) -> Iterator[Compiled]:
    """Compile the artifact in ``folder`` and yield the engine; what the block has not taken is removed after it.

    Raises ArtifactError where this is no intact artifact for TensorRT, BackendMissing, DeviceError without the GPU or
    DLA that is asked for, BuildError where TensorRT fails or is killed, would misread the graph, or the disk refuses.
    """
    manifest = artifact_manifest(folder)
    library = load_library(manifest.engine)
    key, device = engine_key(manifest, library, options)
    _check_opset(folder, manifest, library)
    manifest.verify_files(folder)
    made = folder / f".engine-{os.getpid()}.partial"
    limits = memory_limits(options)
    order = {
        "engine": manifest.engine,
        "graph": str(folder / manifest.engine_file),
        "plan": str(made),
        "settings": {
            "precision": TARGETS[manifest.target][1],
            "optimization_level": options.optimization_level,
            "dla": options.dla,
            **limits,
        },
        "compute_capabilities": options.compute_capabilities,
        "timings": timings_key(key, device),
    }
    try:
        with _disk_errors(folder):
            _sweep(folder)
            made.touch()  # better refused now than after minutes
        answer = run_child(order, report)
        layers = tuple(EngineLayer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in answer["layers"])
        yield Compiled(made, _record(made, key, options, answer["seconds"]), layers)
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)


def is_compiled(folder: Path, key: EngineKey, options: Options) -> EngineRecord | None:
    """Return the record of the engine in ``folder`` if it is whole, of this ``key`` and built with these options."""
    try:
        record = EngineRecord.read(folder)
        record.plan_bytes(folder)
    except ArtifactError:
        return None
    asked = {name: value for name, value in _settings(options).items() if value is not None}
    same = record.key == key and all(record.settings.get(name) == value for name, value in asked.items())
    return record if same else None


def memory_limits(options: Options) -> dict[str, int | None]:
    """Return the bytes of 'workspace' and 'tactics' for a build with ``options``; ``None`` leaves TensorRT's own.

    A GPU with memory of its own refuses kernels that do not fit, and TensorRT takes others. On a Jetson the memory is
    the system's: there TensorRT would take three quarters of all there is, used or not. It gets that of what is free.
    """
    limits: dict[str, int | None] = {"workspace": None, "tactics": None}
    if jetson_model() and (free := _available_bytes()):
        limits = {"workspace": min(max(free // 4, _LEAST), _MOST), "tactics": 3 * free // 4}
    if options.workspace_mb is not None:
        limits["workspace"] = options.workspace_mb * _MIB
    return limits


def timings_key(key: EngineKey, device: Device | None) -> str:
    """Return what timings of kernels are kept under: those of one GPU, version of TensorRT and version of CUDA."""
    found = () if device is None else (device.name, device.compute_capability, device.cuda)
    return blob_key([key.engine, key.version, *found])


def _check_opset(folder: Path, manifest: Manifest, library: Library) -> None:
    """Raise BuildError where the graph is in an opset that the parser would misread."""
    opset = manifest.graph.get("opset", 0)
    if opset > NEWEST_OPSET and library.name == "tensorrt" and library.version < (10,):
        raise BuildError(
            f"{folder / manifest.engine_file} is in opset {opset}; {library.title} {library.version_text} reads up to "
            f"{NEWEST_OPSET} and would misread it: int8 with float16 beside it needs opset 19. Take TensorRT 10 "
            "(JetPack 6.1 and later have it), or export for trt-fp16"
        )


def _sweep(folder: Path) -> None:
    """Remove what builds that were killed have left of their plans."""
    for path in folder.glob(".engine-*.partial"):
        match = re.fullmatch(r"\.engine-(\d+)\.partial", path.name)
        if match and not is_alive(int(match[1])):
            path.unlink(missing_ok=True)


def _record(made: Path, key: EngineKey, options: Options, seconds: float) -> EngineRecord:
    digest = file_digest(made)
    return EngineRecord(plan_name(digest), digest, made.stat().st_size, key, _settings(options), seconds)


def _settings(options: Options) -> dict[str, Any]:
    return {
        "workspace_mb": options.workspace_mb,
        "optimization_level": options.optimization_level,
        "dla": options.dla,
    }


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(f"{folder} cannot be written: {error.strerror or error}") from None


def _available_bytes() -> int | None:
    """Return the memory that programs may still take without swapping; ``None`` where the system does not tell."""
    with suppress(OSError):
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    return None
