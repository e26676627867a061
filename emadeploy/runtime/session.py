"""What an engine must do for the runtime, and the check that it computes what its manifest says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from emadeploy.contract.errors import ArtifactError, DeviceError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import TaskSpec, TensorSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.runtime.machine import sums_bytes

Array = npt.NDArray[Any]
#: One tensor as an engine reports it: name, shape, numpy dtype name.
Signature = tuple[str, tuple[int, ...], str]


class Session(Protocol):
    """A loaded engine. Each backend implements these three; :meth:`run` is the one that matters.

    The runtime calls :meth:`run` from one thread at a time, and never after :meth:`close`.
    """

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs by name for the inputs by name; both as the manifest's TensorSpecs say.

        ``inputs`` are C-contiguous. The arrays returned belong to the caller: a later run must not overwrite them.
        Raises DeviceError where the engine fails.
        """

    def close(self) -> None:
        """Free the engine's memory. Closing twice is allowed."""

    def describe(self) -> dict[str, str | int]:
        """Return at least 'engine', its 'version', the 'device' that it runs on, and its 'threads' on a CPU."""


class OpenSession(Protocol):
    """How a backend module opens an engine: its function ``open_session``."""

    def __call__(self, directory: Path, manifest: Manifest, *, threads: int, device: str | None) -> Session:
        """Load the artifact in ``directory``, whose digests are already checked.

        ``device`` is one of the engine's devices ('cpu', ...), ``None`` its usual one. Raises ArtifactError where the
        engine cannot load it or it differs from the manifest, DeviceError where the device is not here.
        """


def check_manifest(manifest: Manifest) -> None:
    """Check that the tensors of ``manifest`` are those that its model has; raises ArtifactError naming the first.

    The two sorts of graph: float32 image (1, 3, H, W) -> raw maps (1, C, h, w) per task; and, with a frame size,
    uint8 frame (H, W, 3) -> decoded maps per task, as in :mod:`emadeploy.contract.outputs`.
    """
    model, frame_size = manifest.model, manifest.frame_size
    wanted: Signature = ("image", (1, 3, *model.input.size), "float32")
    if frame_size is not None:
        wanted = ("frame", (*frame_size, 3), "uint8")
    inputs = [_signature(tensor) for tensor in manifest.inputs]
    if inputs != [wanted]:
        raise ArtifactError(f"manifest: inputs are {_shown(inputs)}; its model takes {_shown([wanted])}. Export again")
    names = [tensor.name for tensor in manifest.outputs]
    if sorted(names) != sorted(model.task_names):
        raise ArtifactError(f"manifest: outputs are {', '.join(names)}; its tasks are {', '.join(model.task_names)}")
    for tensor in manifest.outputs:
        if not _fits(tensor, model.task(tensor.name), frame_size):
            raise ArtifactError(f"manifest: output {_shown([_signature(tensor)])} is no map of its task. Export again")


def _fits(tensor: TensorSpec, task: TaskSpec, frame_size: tuple[int, int] | None) -> bool:
    if frame_size is None:
        return tensor.dtype == "float32" and len(tensor.shape) == 4 and tensor.shape[:2] == (1, task.channels)
    shape = (*frame_size, 3) if task.kind == "normals" else frame_size
    return tensor.dtype == KINDS[task.kind].dtype and tensor.shape == shape


def check_signature(where: str, manifest: Manifest, inputs: Iterable[Signature], outputs: Iterable[Signature]) -> None:
    """Check that the graph at ``where`` has the manifest's tensors, in any order; raises ArtifactError naming both."""
    for what, found, specs in (("inputs", inputs, manifest.inputs), ("outputs", outputs, manifest.outputs)):
        wanted = sorted(_signature(tensor) for tensor in specs)
        if sorted(found := list(found)) != wanted:
            raise ArtifactError(
                f"{where}: the graph's {what} are {_shown(found)}; the manifest says {_shown(wanted)}. Export again"
            )


def check_types(manifest: Manifest) -> None:
    """Raise DeviceError on a CPU that would saturate, in silence, the sums that the engine was quantised for."""
    if (manifest.calibration or {}).get("types") == "U8S8" and not sums_bytes():
        raise DeviceError(
            f"model {manifest.model.name!r} was quantised for CPUs with VNNI, and this one has none: sums of its "
            "products would overflow. Export it on this machine, or with a recipe that says types: U8S8-reduced"
        )


def _signature(tensor: TensorSpec) -> Signature:
    return tensor.name, tuple(tensor.shape), tensor.dtype


def _shown(tensors: Iterable[Signature]) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, shape, dtype in tensors) or "none"
