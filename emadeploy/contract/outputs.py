"""The one decode: raw maps of the network become the maps users read, per task kind.

| kind | raw (C, h, w) | decoded, at the frame's size |
|---|---|---|
| semseg, human_parts | one score per class | uint8 (H, W), argmax; 255 = no answer |
| depth | 1 | float32 (H, W) in the task's unit, clamped at 0; 0 = no answer |
| normals | 3 | float32 (H, W, 3), unit length, in the task's frame; 0 = no answer |
| edge | 1 | float32 (H, W), sigmoid, in [0, 1] |
| saliency | 2 | float32 (H, W), softmax, probability of "salient" in [0, 1] |

Raw maps are resized bilinearly to the frame before anything that is not linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.labels import BAND_ROWS, resized_argmax
from emadeploy.contract.preprocess import Float32, UInt8, resize_bands
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS

_TINY = np.float32(1e-12)


@dataclass(frozen=True, eq=False)
class TaskOutputs:
    """All maps of one frame, at the frame's height H and width W. A task that the model lacks is ``None``.

    ``stamp`` is the capture time in seconds as given with the frame; ``timings`` holds the milliseconds of each
    stage ('preprocess', 'inference', 'decode').
    """

    stamp: float
    semseg: UInt8 | None = None  # (H, W) class index
    depth: Float32 | None = None  # (H, W) metres, or the unit in the spec
    normals: Float32 | None = None  # (H, W, 3) unit vectors
    edge: Float32 | None = None  # (H, W) probability
    saliency: Float32 | None = None  # (H, W) probability
    human_parts: UInt8 | None = None  # (H, W) part index
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def maps(self) -> dict[str, npt.NDArray[Any]]:
        """The maps that are there, by task name."""
        names = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def decode(raw: npt.NDArray[Any], task: TaskSpec, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the decoded map of ``task`` at ``size`` from its raw map, float (C, h, w) or (1, C, h, w).

    Raises ArtifactError where the raw map has another shape, or holds a value that is not finite: an engine that
    overflowed must not look like a prediction.
    """
    raw_CHW = raw[0] if raw.ndim == 4 and raw.shape[0] == 1 else raw
    if raw_CHW.ndim != 3 or raw_CHW.shape[0] != task.channels:
        raise ArtifactError(f"output {task.name!r} has shape {raw.shape}; expected ({task.channels}, height, width)")
    if not np.isfinite(raw_CHW.sum(dtype=np.float64)):
        raise ArtifactError(f"output {task.name!r} holds values that are not finite: the engine overflowed")
    activation = KINDS[task.kind].activation
    if activation == "argmax":
        return resized_argmax(raw_CHW, size)
    shape = (*size, 3) if task.kind == "normals" else size
    decoded = np.empty(shape, KINDS[task.kind].dtype)
    activate = _ACTIVATIONS[activation]
    for band, band_CHW in resize_bands(raw_CHW, size, BAND_ROWS):
        activate(band_CHW, decoded[band])
    return decoded


def _clamp(value_CHW: Float32, out_HW: Float32) -> None:
    np.maximum(value_CHW[0], 0, out=out_HW)


def _unit_length(vector_CHW: Float32, out_HWC: Float32) -> None:
    length_HW = np.sqrt(np.einsum("chw,chw->hw", vector_CHW, vector_CHW))
    np.divide(vector_CHW, np.maximum(length_HW, _TINY), out=np.moveaxis(out_HWC, 2, 0))


def _sigmoid(score_CHW: Float32, out_HW: Float32) -> None:
    # Through tanh, which does not overflow where exp(-x) would.
    np.tanh(np.float32(0.5) * score_CHW[0], out=out_HW)
    out_HW *= np.float32(0.5)
    out_HW += np.float32(0.5)


def _softmax(score_CHW: Float32, out_HW: Float32) -> None:
    _sigmoid(score_CHW[1:] - score_CHW[:1], out_HW)  # the softmax of two


#: Activation of a map of numbers -> the function that writes a decoded band, from a band (C, rows, W) of raw maps.
_ACTIVATIONS: dict[str, Callable[[Float32, Any], None]] = {
    "none": _clamp,
    "l2": _unit_length,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
