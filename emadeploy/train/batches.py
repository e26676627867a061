"""From samples on disk to batches: the one preprocess, and the one augmentation of the paper, a horizontal flip.

What is drawn for a sample depends on (seed, epoch, position) alone: a resumed run sees what an uninterrupted one saw.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from emadeploy.contract.preprocess import preprocess, resize_nearest
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset, Sample

Batch = tuple[Tensor, dict[str, Tensor]]


class Batches(TorchDataset[Batch]):
    """Samples as (image (3, H, W) float32, truth per task) at the network's size. Indexed by (sample, flip)."""

    def __init__(self, samples: Dataset, spec: ModelSpec) -> None:
        self.samples, self.spec = samples, spec

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: tuple[int, bool]) -> Batch:
        index, flip = draw
        return to_tensors(self.samples[index], self.spec, flip=flip)


class Draws(Sampler[tuple[int, bool]]):
    """Yields (sample, flip) for one epoch: a permutation of the samples, and a coin for each."""

    def __init__(self, count: int, *, seed: int, flip: bool) -> None:
        self.count, self.seed, self.flip, self.epoch = count, seed, flip, 0
        #: Draws to leave out, the next time alone: those of a run that continues inside an epoch.
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, bool]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order, coins = rng.permutation(self.count), rng.random(self.count) < 0.5
        skip, self.skip = self.skip, 0
        for index, coin in zip(order[skip:].tolist(), coins[skip:].tolist(), strict=True):
            yield index, self.flip and coin


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
        self.sampler.skip = state["batches"] * (self.batch_size or 1)


def to_tensors(sample: Sample, spec: ModelSpec, *, flip: bool = False) -> Batch:
    """Return the sample as the network's input and each task's truth, as :func:`losses.task_loss` wants it.

    Truth is resized by nearest neighbour, and labels, depth and normals are never mixed. A flip mirrors everything
    and negates the x of normals.
    """
    image_3HW = preprocess(sample.image, spec.input)[0]
    truth = {
        name: resize_nearest(sample.truth[name], spec.input.size) for name in spec.task_names if name in sample.truth
    }
    if flip:
        image_3HW = image_3HW[:, :, ::-1]
        truth = {name: target[:, ::-1] for name, target in truth.items()}
        if "normals" in truth:
            truth["normals"] = truth["normals"] * np.array([-1, 1, 1], np.float32)
    return torch.from_numpy(np.ascontiguousarray(image_3HW)), {
        name: _target(name, target) for name, target in truth.items()
    }


def _target(kind: str, target: np.ndarray) -> Tensor:
    if kind == "depth":
        return torch.from_numpy(np.ascontiguousarray(target, np.float32))[None]
    if kind == "normals":
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(target, 2, 0), np.float32))
    return torch.from_numpy(target.astype(np.int64))
