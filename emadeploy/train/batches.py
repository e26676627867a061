"""From samples on disk to batches: the one preprocess, truth as losses want it, frames that cannot be read.

What is drawn for a sample depends on (seed, epoch, position) alone: a resumed run sees what an uninterrupted one saw,
and several processes together see what one would.

Shape suffixes: B batch, H x W the network's image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from emadeploy.contract.errors import DataError
from emadeploy.contract.preprocess import preprocess, resize_nearest
from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset, Sample, no_truth
from emadeploy.train import processes
from emadeploy.train.augment import Draw, augment, draw_epoch

#: Frames in a row that may be unreadable before one takes their place.
REPLACEMENTS = 32


class Batch(NamedTuple):
    """Frames for one step. ``image`` is (B, 3, H, W) float32; ``truth`` is by task, as losses take it.

    Every batch of a run has the same tasks; what a frame has no truth for is marked as not to be judged. ``corrupt``
    says of each frame that could not be read which it was and why.
    """

    image: Tensor
    truth: dict[str, Tensor]
    names: list[str]
    corrupt: list[str]


class Batches(TorchDataset[Batch]):
    """Samples at the network's size, each a batch without its first axis. Indexed by :class:`Draw`.

    Of a sample that cannot be read, the next that can takes the place (``replace``, for training), or an empty one
    without any truth (to validate on: no frame may count twice).
    """

    def __init__(self, samples: Dataset, spec: ModelSpec, *, replace: bool = True) -> None:
        self.samples, self.spec, self.replace = samples, spec, replace
        self.tasks = tuple(name for name in spec.task_names if name in samples.tasks)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> Batch:
        corrupt: list[str] = []
        for step in range(min(REPLACEMENTS, len(self)) if self.replace else 1):
            index = (draw.index + step) % len(self)
            try:
                sample = self.samples[index]
            except DataError as error:
                corrupt.append(f"frame {index} of {self.samples.description}: {error}")
                continue
            image_3HW, truth = to_tensors(augment(sample, draw, self.spec), self.spec)
            return Batch(image_3HW, self._all_tasks(truth), [sample.name], corrupt)
        return Batch(torch.zeros(3, *self.spec.input.size), self._all_tasks({}), [f"frame {draw.index}"], corrupt)

    def _all_tasks(self, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: truth[name] if name in truth else _target(name, no_truth(name, self.spec.input.size))
            for name in self.tasks
        }


def collate(frames: Sequence[Batch]) -> Batch:
    """Return the batch of several frames."""
    return Batch(
        torch.stack([frame.image for frame in frames]),
        {name: torch.stack([frame.truth[name] for frame in frames]) for name in frames[0].truth},
        [name for frame in frames for name in frame.names],
        [reason for frame in frames for reason in frame.corrupt],
    )


class Draws(Sampler[Draw]):
    """The draws of one epoch for this process: its share of every batch of ``batch_size`` frames, all but the last.

    What does not fill a batch is left out, unless there is but one batch.
    """

    def __init__(self, count: int, recipe: TrainSpec, *, seed: int) -> None:
        self.count, self.recipe, self.seed, self.epoch = count, recipe, seed, 0
        #: Batches to leave out, the next time alone: those of a run that continues inside an epoch.
        self.skip = 0

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return max(self.count // self.recipe.batch_size, 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        size = min(self.recipe.batch_size, self.count)
        return self.batches * len(processes.share(range(size)))

    def __iter__(self) -> Iterator[Draw]:
        draws = draw_epoch(self.count, self.recipe, seed=self.seed, epoch=self.epoch)
        skip, self.skip = self.skip, 0
        for batch in range(self.batches):
            frames = list(islice(draws, self.recipe.batch_size))
            if batch >= skip:
                yield from processes.share(frames)


class InOrder(Sampler[Draw]):
    """Every frame once, unchanged: this process's share of them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return len(processes.share(range(self.count)))

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(index) for index in processes.share(range(self.count)))


class Loader(DataLoader[Batch]):
    """Batches by :class:`Draws`, which Lightning can continue inside an epoch.

    ``position`` is where training is: the epoch, and its batches that were trained on. It is set by who saves: what
    the loader itself has given out may lie in a queue of its workers.
    """

    position = (0, 0)

    def state_dict(self) -> dict[str, int]:
        """Return what goes with the trainer's state."""
        epoch, batches = self.position
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batches of ``state``."""
        self.position = state["epoch"], state["batches"]
        assert isinstance(self.sampler, Draws)
        # Workers draw as soon as they start, which is before Lightning chooses the epoch.
        self.sampler.set_epoch(state["epoch"])
        self.sampler.skip = state["batches"]


def to_tensors(sample: Sample, spec: ModelSpec) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sample as the network's input (3, H, W) and each task's truth, as :func:`losses.task_loss` wants it.

    Truth is resized by nearest neighbour: labels, depth and normals are never mixed.
    """
    image_3HW = preprocess(np.ascontiguousarray(sample.image), spec.input)[0]
    truth = {
        name: _target(name, resize_nearest(sample.truth[name], spec.input.size))
        for name in spec.task_names
        if name in sample.truth
    }
    return torch.from_numpy(image_3HW), truth


def _target(kind: str, target: np.ndarray) -> Tensor:
    if kind == "depth":
        return torch.from_numpy(np.ascontiguousarray(target, np.float32))[None]
    if kind == "normals":
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(target, 2, 0), np.float32))
    return torch.from_numpy(target.astype(np.int64))
