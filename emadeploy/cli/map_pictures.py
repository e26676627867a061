"""Decoded maps as pictures of a page, with the line under each: what the demo and the bench show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from emadeploy.bench.page import Picture
from emadeploy.contract.colour import colourise
from emadeploy.contract.spec import TaskSpec

#: Task -> the metric written under its picture, and how.
_UNDER = {
    "semseg": ("pixel_accuracy", "{:.0f} % of pixels right"),
    "human_parts": ("miou", "mIoU {:.0f} %"),
    "depth": ("rel", "off by {:.0%} on average"),
    "normals": ("mean", "off by {:.0f}° on average"),
    "edge": ("f1", "F1 {:.0f} %"),
    "saliency": ("maxf", "max F {:.0f} %"),
}
_TITLES = {"semseg": "labels", "human_parts": "parts"}


def map_picture(
    decoded: Any, task: TaskSpec, span: tuple[float, float], found: Mapping[str, float] | None = None
) -> Picture:
    """Return the picture of a decoded map; ``span`` is the range of its depths, ``found`` its metrics if judged."""
    flat = task.kind in ("semseg", "human_parts")
    caption = task_title(task)
    if task.kind == "depth":
        unit = "m" if task.unit == "metre" else str(task.unit).replace("_", " ")
        caption += f", {span[0]:.1f} to {span[1]:.1f} {unit}"
    metric, text = _UNDER[task.kind]
    if found and metric in found:
        caption += f": {text.format(found[metric])}"
    return Picture(colourise(decoded, task, span if task.kind == "depth" else None), caption, flat)


def task_title(task: TaskSpec) -> str:
    """Return what a task is called on a page: 'labels'."""
    return _TITLES.get(task.kind, task.kind)


def depth_range(depth_HW: Any) -> tuple[float, float]:
    """Return the 2nd and 98th percentile of the depths that there are; (0, 1) where there is none."""
    if depth_HW is None or not (depth_HW > 0).any():
        return 0.0, 1.0
    near, far = np.percentile(depth_HW[depth_HW > 0], (2, 98))
    return float(near), float(far)
