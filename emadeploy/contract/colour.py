"""Pictures of decoded maps: uint8 RGB (H, W, 3), for people to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.preprocess import Float32, UInt8
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import spread_palette

# Anchors of the Turbo colour map (A. Mikhailov, Google Research, 2019), blue (near) to red (far).
_TURBO = np.array(
    [
        (48, 18, 59),
        (70, 107, 227),
        (40, 187, 236),
        (49, 242, 153),
        (162, 252, 60),
        (237, 208, 58),
        (251, 128, 34),
        (210, 49, 5),
        (122, 4, 3),
    ],
    np.float32,
)


def colourise(decoded: npt.NDArray[Any], task: TaskSpec, depth_range: tuple[float, float] | None = None) -> UInt8:
    """Return a picture (H, W, 3) of a decoded map of ``task``.

    Labels take the task's palette (255 is black); depth the Turbo colours over ``depth_range``, by default its own
    2nd to 98th percentile (0 is black); normals red = right, green = up, blue = toward the camera; probabilities grey.
    """
    if task.kind in ("semseg", "human_parts"):
        table = np.zeros((256, 3), np.uint8)
        table[: task.channels] = task.palette or spread_palette(task.channels)
        picture: UInt8 = table[decoded.astype(np.uint8)]
        return picture
    if task.kind == "depth":
        return _depth_picture(decoded, depth_range)
    if task.kind == "normals":
        # The optical frame has y down and z forward; people expect green up and blue toward them.
        picture = (decoded * np.array([127.5, -127.5, -127.5], np.float32) + 127.5).clip(0, 255).astype(np.uint8)
        picture[~decoded.any(axis=2)] = 0
        return picture
    grey = (np.clip(decoded, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _depth_picture(depth_HW: Float32, depth_range: tuple[float, float] | None) -> UInt8:
    valid = depth_HW > 0
    if depth_range is None:
        depth_range = tuple(np.percentile(depth_HW[valid], (2, 98))) if valid.any() else (0.0, 1.0)
    near, far = depth_range
    position = ((depth_HW - near) / max(far - near, 1e-6)).clip(0, 1) * (len(_TURBO) - 1)
    below = np.minimum(position.astype(np.intp), len(_TURBO) - 2)
    share = (position - below)[..., None]
    picture: UInt8 = (_TURBO[below] * (1 - share) + _TURBO[below + 1] * share).astype(np.uint8)
    picture[~valid] = 0
    return picture
