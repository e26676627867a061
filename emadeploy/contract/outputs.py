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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.preprocess import Float32, UInt8, resize_bilinear
from emadeploy.contract.spec import TaskSpec

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
    map_CHW = resize_bilinear(raw_CHW, size)
    if task.kind in ("semseg", "human_parts"):
        label_HW: UInt8 = map_CHW.argmax(axis=0).astype(np.uint8)
        return label_HW
    if task.kind == "depth":
        depth_HW: Float32 = np.maximum(map_CHW[0], 0)
        return depth_HW
    if task.kind == "normals":
        length_HW = np.sqrt(np.einsum("chw,chw->hw", map_CHW, map_CHW))
        map_CHW /= np.maximum(length_HW, _TINY)
        return np.ascontiguousarray(np.moveaxis(map_CHW, 0, 2))
    if task.kind == "edge":
        return _sigmoid(map_CHW[0])
    return _sigmoid(map_CHW[1] - map_CHW[0])  # saliency: the softmax of two


def _sigmoid(score: Float32) -> Float32:
    # Through tanh, which does not overflow where exp(-x) would.
    half: Float32 = 0.5 * np.tanh(0.5 * score) + np.float32(0.5)
    return half
