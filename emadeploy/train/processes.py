"""The processes that train together, one per device: who does what, and what they tell each other.

With one process everything here is the identity: nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

from emadeploy.contract.errors import EmadeployError

_Item = TypeVar("_Item")


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def share(items: Sequence[_Item]) -> Sequence[_Item]:
    """Return this process's part of ``items``: together they have every item once, in order, as evenly as can be."""
    mine, all_of_them = rank(), count()
    first, end = (len(items) * place // all_of_them for place in (mine, mine + 1))
    return items[first:end]


def total(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over the processes, without a gradient."""
    if count() == 1:
        return value
    summed = value.detach().clone()
    distributed.all_reduce(summed)
    return summed


def total_array(array: npt.NDArray[np.float64], device: torch.device) -> npt.NDArray[np.float64]:
    """Return the sum of ``array`` over the processes; it travels by way of ``device``."""
    if count() == 1:
        return array
    summed: npt.NDArray[np.float64] = total(torch.from_numpy(array).to(device)).cpu().numpy()
    return summed


def anyone(yes: bool, device: torch.device) -> bool:
    """Return whether any process says yes."""
    return yes if count() == 1 else bool(total(torch.tensor(float(yes), device=device)))


def messages(own: str | None, device: torch.device) -> list[str]:
    """Return what the processes have to say, in their order; nothing is sent but a flag where all are silent."""
    if not anyone(own is not None, device):
        return []
    said: list[Any] = [own]
    if count() > 1:
        said = [None] * count()
        distributed.all_gather_object(said, own)
    return [message for message in said if message is not None]


def stop_for(problem: str | None, kind: type[EmadeployError], device: torch.device) -> None:
    """Raise ``kind`` in the first process with what all of them have to say, if any has a problem.

    The others end with SystemExit, and so with status 1, without saying it again. None is left waiting.
    """
    if said := messages(problem, device):
        raise kind("; ".join(said)) if rank() == 0 else SystemExit(1)


def synchronise_batch_norm(module: nn.Module, device_type: str) -> nn.Module:
    """Return ``module`` with every BatchNorm2d taking the statistics of the frames of all processes.

    Parameters, buffers and their names stay. PyTorch's own does not run on CPUs; :class:`HostSyncBatchNorm` does.
    """
    if device_type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, HostSyncBatchNorm.of(child))
        else:
            synchronise_batch_norm(child, device_type)
    return module


class HostSyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the frames of all processes, (B, C, H, W) -> (B, C, H, W), on any device."""

    @classmethod
    def of(cls, layer: nn.BatchNorm2d) -> HostSyncBatchNorm:
        """Return the layer that shares all parameters and buffers of ``layer``."""
        synced = cls(layer.num_features, layer.eps, layer.momentum)
        synced.weight, synced.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers():
            setattr(synced, name, buffer)
        return synced

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, in training by the mean and variance of all processes' pixels."""
        if not self.training or count() == 1:
            return super().forward(input)
        feat_BCHW = input.to(torch.promote_types(input.dtype, torch.float32))
        pixels = total(feat_BCHW.new_tensor(feat_BCHW.numel() / feat_BCHW.shape[1]))
        mean_C = _SumOverProcesses.apply(feat_BCHW.sum((0, 2, 3))) / pixels
        # In two passes: the difference of two large sums would lose the digits of a small variance.
        deviation_BCHW = feat_BCHW - mean_C[:, None, None]
        variance_C = _SumOverProcesses.apply(deviation_BCHW.square().sum((0, 2, 3))) / pixels
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * pixels / (pixels - 1), self.momentum)
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        out_BCHW = deviation_BCHW * scale_C[:, None, None] + self.bias[:, None, None]
        return out_BCHW.to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes; as each of them uses it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient.contiguous())


def freeze_batch_norm(module: nn.Module) -> None:
    """Let every BatchNorm under ``module`` use its running statistics, and leave them as they are."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            layer.eval()
