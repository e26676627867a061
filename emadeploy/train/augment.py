"""Augmentation: what is drawn for a frame, and what that does to its picture and to its truth.

Shape suffixes: H x W rows and columns of the frame as it is on disk, h x w those of the part that is cut out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Sample

Truth = Mapping[str, npt.NDArray[Any]]
#: Weights of red, green and blue in the brightness that people see (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Draw:
    """A frame by its ``index``, and what is done to it: nothing unless it says so.

    ``scale`` >= 1 enlarges it; ``top`` and ``left``, from 0 to 1, place the part that is kept. The three others are
    factors of the picture's colours.
    """

    index: int
    flip: bool = False
    scale: float = 1.0
    top: float = 0.5
    left: float = 0.5
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def draw_epoch(count: int, recipe: TrainSpec, *, seed: int, epoch: int) -> Iterator[Draw]:
    """Yield the draws of one epoch: every frame once, in an order and with changes that (seed, epoch) alone decide."""
    rng = np.random.default_rng([seed, epoch])
    order, coins = rng.permutation(count), rng.random(count) < 0.5
    chances = rng.random((count, 6))
    scales = 1 + (recipe.random_scale - 1) * chances[:, 0]
    colours = 1 + recipe.colour_jitter * (2 * chances[:, 3:] - 1)
    for place, index in enumerate(order.tolist()):
        _, top, left = chances[place, :3].tolist()
        flip = recipe.horizontal_flip and bool(coins[place])
        yield Draw(index, flip, float(scales[place]), top, left, *colours[place].tolist())


def augment(sample: Sample, draw: Draw, spec: ModelSpec) -> Sample:
    """Return the sample as ``draw`` changes it: cut out, mirrored, and in other colours; its truth agrees with it.

    To be enlarged is to be seen from nearer: depth is divided by the scale (inverse depth is multiplied by it). A
    mirror negates the x of normals.
    """
    image, truth = sample.image, dict(sample.truth)
    if draw.scale > 1:
        image, truth = _enlarge(image, truth, draw, spec)
    if draw.flip:
        image = image[:, ::-1]
        truth = {name: target[:, ::-1] for name, target in truth.items()}
        if "normals" in truth:
            truth["normals"] = truth["normals"] * np.array([-1, 1, 1], np.float32)
    return Sample(sample.name, _recolour(image, draw), truth)


def _enlarge(image: UInt8, truth: Truth, draw: Draw, spec: ModelSpec) -> tuple[UInt8, dict[str, npt.NDArray[Any]]]:
    H, W = image.shape[:2]
    h, w = max(round(H / draw.scale), 1), max(round(W / draw.scale), 1)
    top, left = round(draw.top * (H - h)), round(draw.left * (W - w))
    kept = np.s_[top : top + h, left : left + w]
    cut = {name: target[kept] for name, target in truth.items()}
    if "depth" in cut and "depth" in spec.task_names:
        nearer = H / h  # what the rounding has made of the scale
        is_inverse = spec.task("depth").unit == "inverse_depth"
        cut["depth"] = cut["depth"] * np.float32(nearer if is_inverse else 1 / nearer)
    return image[kept], cut


def _recolour(image: UInt8, draw: Draw) -> UInt8:
    if draw.brightness == draw.contrast == draw.saturation == 1:
        return image
    colour_HW3 = image.astype(np.float32) * np.float32(draw.brightness)
    grey_HW1 = (colour_HW3 @ _LUMA)[..., None]
    mean = grey_HW1.mean()
    colour_HW3 = grey_HW1 + (colour_HW3 - grey_HW1) * np.float32(draw.saturation)
    colour_HW3 = mean + (colour_HW3 - mean) * np.float32(draw.contrast)
    recoloured: UInt8 = np.rint(np.clip(colour_HW3, 0, 255)).astype(np.uint8)
    return recoloured
