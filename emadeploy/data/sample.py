"""The records of this folder: a frame with its ground truth, and what every reader of frames offers.

**Partial labels.** A sample may lack a truth that others of its data set have: its task is then absent from ``truth``,
never a map that means something else. Who needs every task of every sample (a batch) fills in :func:`no_truth`, a map
in which no pixel is to be judged; who judges (metrics) skips the task for that frame. The two come to the same.

**Corrupt files.** A sample whose files cannot be read, or hold what they must not, is a DataError that names the file,
raised by ``dataset[index]`` alone: the other samples can still be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import TaskSpec

#: The value of a label, an edge or a saliency map where no truth is known.
IGNORE = 255


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame. ``image`` is uint8 (H, W, 3) RGB.

    ``truth`` holds maps of the same height and width, by task, in the conventions of decoded maps
    (:mod:`emadeploy.contract.outputs`); a task that this frame has no truth for is absent. Pixels that are not to be
    judged:

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
        """The tasks that samples have a truth for, each sample at most these; none where there are only pictures."""

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """What the truths are, in the order of ``tasks``: classes, unit, direction, frame."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; raises IndexError past the end, and DataError where its files cannot be used."""


def no_truth(task: str, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return a map of ``size`` (height, width) that stands for a truth of ``task`` that is not there.

    No pixel of it is to be judged: 255 in labels, edges and saliency, 0 in depth, (0, 0, 0) in normals. Type and
    shape are those of :class:`Sample`. Raises SpecError for a task that does not exist.
    """
    if task == "depth":
        return np.zeros(size, np.float32)
    if task == "normals":
        return np.zeros((*size, 3), np.float32)
    if task in ("semseg", "human_parts", "edge", "saliency"):
        return np.full(size, IGNORE, np.uint8)
    raise SpecError(f"task {task!r} is unknown; known: semseg, depth, normals, edge, saliency, human_parts")
