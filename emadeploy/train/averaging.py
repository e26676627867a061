"""A running mean of a network's weights (EMA): steadier than the weights of any one step, and what is kept."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """``model`` is the exponential moving mean of a network's parameters and running statistics.

    The mean of the first steps is shorter, (1 + n) / (10 + n) after n of them, so that it forgets the random weights
    it starts from.
    """

    updates: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model, self.decay = copy.deepcopy(model).requires_grad_(False), decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model`` after a step of its optimiser."""
        self.updates += 1
        done = int(self.updates)
        share = 1 - min(self.decay, (1 + done) / (10 + done))
        for mean, now in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)
