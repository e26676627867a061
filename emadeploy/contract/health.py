"""Is the network still in its right mind? A number per frame that needs no truth: do its answers agree?

Depth, normals and labels describe one scene. Where a camera is dirty, turned or overexposed, or an engine computes
nonsense, they stop to fit together long before anybody measures an accuracy. Compared are

- the predicted normals with the normals of the predicted depth: the median ``angle`` between them, in degrees;
- the borders of the predicted labels with the geometry: the share of ``borders`` at which the depth bends, or the
  normals turn, more than at four fifths of all places. By chance that is one fifth.

Both on a grid of some 64 cells across, each the mean of its pixels: predicted depth is too rough for the normals of
single pixels, and a robot has no time for all of them.

``score`` is their geometric mean on a scale from 0 (nothing fits) to 1. It does not see a depth that is wrong by one
factor everywhere, because neither normals nor borders do: that is what the median ``distance`` is for.

Absolute values depend on the scene and the network, so they are judged by the range seen on known frames:
:class:`HealthRange`, which the manifest of an artifact keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import SpecError
from emadeploy.contract.geometry import Intrinsics, bends, inverse, normals_from_depth, shifted, valid_depth
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.plain import as_mapping, is_a, require, spec_path
from emadeploy.contract.preprocess import Float32
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS

#: Degrees of the horizontal field of view where nobody gives the intrinsics: that of many cameras.
USUAL_FOV = 60.0
#: Cells across; over how many of them differences are taken, and within how many a border counts as on an edge.
_CELLS, _REACH, _NEAR = 64, 2, 1
#: An edge is what bends more than this share of all cells, and at least so much: relative depth, 1 - cosine.
_SHARE, _LEAST = 0.8, 1e-3
#: Fewer cells than this tell nothing.
_ENOUGH = 20
#: A distance is out of range where it is this factor beyond it: rooms differ, millimetres for metres differ more.
_FARTHER = 2.0

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Health:
    """How well the maps of one frame fit together; a part that cannot be told is NaN.

    ``score`` is in [0, 1], larger is better; ``angle`` in degrees; ``borders`` a share; ``distance`` in the unit of the
    depth.
    """

    score: float
    angle: float
    borders: float
    distance: float


def health(outputs: TaskOutputs, tasks: Iterable[TaskSpec], intrinsics: Intrinsics | None = None) -> Health | None:
    """Return how well the maps of a frame fit together; ``None`` for a model that has no two maps to compare.

    Depth is needed, and normals in the camera's frame, or labels. Without ``intrinsics`` a horizontal field of view of
    60 degrees is taken, which shifts the angle; the range must then have been taken in the same way.
    """
    by_kind = {task.kind: task for task in tasks}
    if not judgeable(by_kind.values()) or outputs.depth is None:
        return None
    height, width = outputs.depth.shape
    step = max(1, round(width / _CELLS))
    camera = (intrinsics or Intrinsics.from_fov((height, width), USUAL_FOV)).scaled((height, width)).cropped(step)
    # Means of inverse depth, which is affine on planes: the cells of a plane lie in it.
    told = by_kind["depth"].unit == "inverse_depth"
    inverse_HW = outputs.depth if told else inverse(outputs.depth)
    depth_HW = inverse(_cells(np.where(valid_depth(inverse_HW), inverse_HW, np.float32(np.nan)), step))
    camera = camera.scaled(depth_HW.shape)
    normals_HWC = None
    if outputs.normals is not None and _in_camera(by_kind):
        sign = np.float32(1 if by_kind["normals"].direction == "toward_camera" else -1)
        normals_HWC = sign * _unit(_cells(outputs.normals, step))
    angle = math.nan if normals_HWC is None else _angle(depth_HW, normals_HWC, camera)
    borders = math.nan
    if outputs.semseg is not None:
        rows, columns = depth_HW.shape
        labels_HW = outputs.semseg[step // 2 :: step, step // 2 :: step][:rows, :columns]
        borders = _borders(labels_HW, depth_HW, normals_HWC)
    valid_HW = valid_depth(depth_HW)
    distance = float(np.median(depth_HW[valid_HW])) if np.count_nonzero(valid_HW) >= _ENOUGH else math.nan
    parts = [part for part in (1 - angle / 90, borders) if not math.isnan(part)]
    score = math.prod(max(0.0, part) for part in parts) ** (1 / len(parts)) if parts else math.nan
    return Health(score, angle, borders, distance)


def judgeable(tasks: Iterable[TaskSpec]) -> bool:
    """Whether a model of these tasks has maps whose agreement can be judged."""
    by_kind = {task.kind: task for task in tasks}
    return "depth" in by_kind and ("semseg" in by_kind or _in_camera(by_kind))


@dataclass(frozen=True)
class HealthRange:
    """The health seen on ``frames`` frames: by part of the health the lowest, the median and the highest.

    A part that could be told for no frame is left out. ``intrinsics`` says whether they were known, or
    :data:`USUAL_FOV` was taken.
    """

    frames: int
    parts: Mapping[str, Mapping[str, float]]
    intrinsics: bool = False

    @classmethod
    def of(cls, seen: Iterable[Health], *, intrinsics: bool = False) -> HealthRange:
        """Return the range of the health of known frames; raises SpecError where none could be judged."""
        seen = [health for health in seen if not math.isnan(health.score)]
        if not seen:
            raise SpecError("no frame whose health can be told: their depth has no valid pixels")
        parts = {}
        for part in ("score", "angle", "borders", "distance"):
            values = [value for value in (getattr(health, part) for health in seen) if not math.isnan(value)]
            if values:
                parts[part] = {"low": min(values), "median": float(np.median(values)), "high": max(values)}
        return cls(len(seen), parts, intrinsics)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HealthRange:
        """Read what :meth:`to_dict` wrote; raises SpecError with the path of what is wrong."""
        with spec_path("health"):
            frames = data.get("frames")
            require(is_a(int, frames) and frames > 0, f"frames {frames!r} is not a positive int")  # type: ignore[operator]
            parts = {}
            for part, values in as_mapping("parts", data.get("parts")).items():
                found = as_mapping(part, values)
                for name in ("low", "median", "high"):
                    require(is_a(float, found.get(name)), f"{part}: {name} {found.get(name)!r} is not a number")
                parts[part] = {name: float(found[name]) for name in ("low", "median", "high")}
            require("score" in parts, "it has no range of 'score'")
            return cls(int(data["frames"]), parts, bool(data.get("intrinsics", False)))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, for the manifest."""
        parts = {part: dict(values) for part, values in self.parts.items()}
        return {"frames": self.frames, "intrinsics": self.intrinsics, "parts": parts}

    def warning(self, found: Health) -> str | None:
        """Return what is wrong with a frame of this health, in a sentence; ``None`` where it lies in the range."""
        if math.isnan(found.score):
            return "nothing to judge: the depth has no valid pixels"
        score = self.parts["score"]
        if found.score < score["low"]:
            return (
                f"depth, normals and labels fit together by {found.score:.2f}, those of known frames by "
                f"{score['low']:.2f} to {score['high']:.2f}{self._parts(found)}"
            )
        distance = self.parts.get("distance")
        if distance is None or math.isnan(found.distance):
            return None
        low, high = distance["low"] / _FARTHER, distance["high"] * _FARTHER
        if not low <= found.distance <= high:
            usual = f"{distance['low']:.3g} to {distance['high']:.3g}"
            return f"the median depth is {found.distance:.3g}, on known frames {usual}"
        return None

    def _parts(self, found: Health) -> str:
        angle, borders = self.parts.get("angle"), self.parts.get("borders")
        said = []
        if angle is not None and found.angle > angle["high"]:
            said.append(f"normals {found.angle:.0f} degrees off the depth, usually {angle['median']:.0f}")
        if borders is not None and found.borders < borders["low"]:
            said.append(f"{found.borders:.0%} of label borders on edges, usually {borders['median']:.0%}")
        return f" ({'; '.join(said)})" if said else ""


def _in_camera(by_kind: Mapping[str, TaskSpec]) -> bool:
    return "normals" in by_kind and by_kind["normals"].frame == "camera_optical"


def _cells(map_HWx: Float32, step: int) -> Float32:
    """Return the means (H // step, W // step, ...) of square cells; of what is NaN, those of the rest of the cell."""
    rows, columns = map_HWx.shape[0] // step, map_HWx.shape[1] // step
    cells = map_HWx[: rows * step, : columns * step].reshape(rows, step, columns, step, *map_HWx.shape[2:])
    known = np.isfinite(cells)
    count = known.sum(axis=(1, 3), dtype=np.float32)
    total = np.where(known, cells, np.float32(0)).sum(axis=(1, 3), dtype=np.float32)
    mean: Float32 = np.where(2 * count >= step * step, total / np.maximum(count, 1), np.float32(np.nan))
    return mean


def _unit(vector_HWC: Float32) -> Float32:
    """Return vectors of unit length, 0 for those that are 0 or not finite."""
    length_HW1 = np.sqrt(np.einsum("hwc,hwc->hw", vector_HWC, vector_HWC))[:, :, None]
    known_HW1 = np.isfinite(length_HW1) & (length_HW1 > 0)
    unit_HWC = np.zeros_like(vector_HWC)
    np.divide(vector_HWC, length_HW1, out=unit_HWC, where=known_HW1)
    return unit_HWC


def _angle(depth_HW: Float32, normals_HWC: Float32, camera: Intrinsics) -> float:
    """Return the median angle in degrees between the normals and those of the depth."""
    implied_HWC = normals_from_depth(depth_HW, camera, reach=_REACH)
    cosine_HW = np.einsum("hwc,hwc->hw", implied_HWC, normals_HWC)
    known_HW = implied_HWC.any(axis=2) & normals_HWC.any(axis=2) & np.isfinite(cosine_HW)
    if np.count_nonzero(known_HW) < _ENOUGH:
        return math.nan
    return math.degrees(math.acos(float(np.clip(np.median(cosine_HW[known_HW]), -1, 1))))


def _borders(labels_HW: npt.NDArray[Any], depth_HW: Float32, normals_HWC: Float32 | None) -> float:
    """Return the share of the labels' borders that lie on edges of the geometry; the mean of depth's and normals'."""
    known_HW = (labels_HW != KINDS["semseg"].invalid) & valid_depth(depth_HW)
    label_HW = np.where(known_HW, labels_HW, np.float32(np.nan)).astype(np.float32)
    border_HW = np.zeros(labels_HW.shape, bool)
    for axis in (0, 1):
        change_HW = shifted(label_HW, 1, axis) - label_HW
        border_HW |= np.isfinite(change_HW) & (change_HW != 0)
    if np.count_nonzero(border_HW) < _ENOUGH:
        return math.nan
    edges = [_strongest(bends(depth_HW, reach=_REACH))]
    if normals_HWC is not None:
        edges.append(_strongest(_turns(normals_HWC)))
    return float(np.mean([edge_HW[border_HW].mean() for edge_HW in edges]))


def _turns(normals_HWC: Float32) -> Float32:
    """Return 1 - cosine (H, W) between the normals before and after each pixel; NaN where there are none."""
    known_HW1 = normals_HWC.any(axis=2, keepdims=True)
    known_HWC = np.where(known_HW1, normals_HWC, np.float32(np.nan))
    turns = []
    for axis in (0, 1):
        before, after = (shifted(known_HWC, offset, axis) for offset in (-_REACH, _REACH))
        turns.append(1 - np.einsum("hwc,hwc->hw", before, after))
    turn_HW: Float32 = np.fmax(*turns)
    return turn_HW


def _strongest(strength_HW: Float32) -> _Mask:
    """Return the fifth of the cells (H, W) that are nearest to what is strongest, as far as it is an edge at all."""
    near_HW = strength_HW
    for axis in (0, 1):
        near_HW = np.fmax.reduce([shifted(near_HW, offset, axis) for offset in range(-_NEAR, _NEAR + 1)])
    finite = near_HW[np.isfinite(near_HW)]
    bound = max(_LEAST, float(np.quantile(finite, _SHARE))) if finite.size else _LEAST
    strongest_HW: _Mask = np.nan_to_num(near_HW, nan=0.0) > bound
    return strongest_HW
