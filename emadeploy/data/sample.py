"""The records of this folder: a frame with its ground truth, and what every reader of frames offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame. ``image`` is uint8 (H, W, 3) RGB.

    ``truth`` holds maps of the same height and width, by task, in the conventions of decoded maps
    (:mod:`emadeploy.contract.outputs`). Pixels that are not to be judged:

    | task | map | not judged |
    |---|---|---|
    | semseg, human_parts | uint8 (H, W) class index | 255 |
    | depth | float32 (H, W) in the data set's unit | 0 |
    | normals | float32 (H, W, 3) | (0, 0, 0) |
    | edge, saliency | uint8 (H, W), 0 or 1 | 255 |
    """

    name: str
    image: npt.NDArray[np.uint8]
    truth: Mapping[str, npt.NDArray[Any]]


class Dataset(Protocol):
    """Frames in a fixed order. ``description`` names the data in reports, ``tasks`` the truths that samples hold."""

    @property
    def description(self) -> str:
        """What this is, in a few words that lead back to it: 'nyuv2:/data/nyuv2 val'."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that every sample has a truth for; none where there are only pictures."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; raises IndexError past the end, and DataError where its files cannot be used."""
