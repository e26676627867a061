"""Distillation: what a network still has of the answers of another, its teacher.

Legend: B batch, C channels, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own habit

from emadeploy.contract.spec import TaskSpec
from emadeploy.nets.network import Network


class Teacher:
    """``network`` in evaluation, never trained. No module: it is no part of what is trained, saved or continued.

    ``weight``: what the distance to its answers counts, beside the losses of the tasks.
    """

    def __init__(self, network: Network, weight: float) -> None:
        self.network, self.weight = network.eval().requires_grad_(False), weight

    def loss(self, raw: Mapping[str, Tensor], image_B3HW: Tensor) -> Tensor:
        """Return ``weight`` times the sum over tasks of `distance` from its answers, each times the task's weight."""
        with torch.no_grad():
            wanted = self.network.to(image_B3HW.device).deploy(image_B3HW)
        distances = [
            task.weight * distance(raw[task.name], wanted[task.name], task) for task in self.network.spec.tasks
        ]
        return self.weight * torch.stack(distances).sum()


def distance(raw_BCHW: Tensor, wanted_BCHW: Tensor, task: TaskSpec) -> Tensor:
    """Return how far raw maps are from those wanted, a mean over all pixels, in the terms of the task's own loss.

    Classes: Kullback-Leibler divergence of their probabilities. Depth: absolute difference, in its unit. Normals: one
    minus the cosine. Edges: the divergence of the probability that there is one.
    """
    return _DISTANCES[task.kind](raw_BCHW, wanted_BCHW).mean()


def _divergence(raw_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    found, wanted = raw_BCHW.log_softmax(1), wanted_BCHW.log_softmax(1)
    return (wanted.exp() * (wanted - found)).sum(1)


def _divergence_of_edges(raw_B1HW: Tensor, wanted_B1HW: Tensor) -> Tensor:
    # The softmax over (x, 0) is the sigmoid of x.
    return _divergence(*(torch.cat([scores, torch.zeros_like(scores)], 1) for scores in (raw_B1HW, wanted_B1HW)))


def _absolute(raw_B1HW: Tensor, wanted_B1HW: Tensor) -> Tensor:
    return (raw_B1HW - wanted_B1HW).abs()


def _one_minus_cosine(raw_B3HW: Tensor, wanted_B3HW: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(raw_B3HW, wanted_B3HW, dim=1)


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "semseg": _divergence,
    "human_parts": _divergence,
    "saliency": _divergence,
    "edge": _divergence_of_edges,
    "depth": _absolute,
    "normals": _one_minus_cosine,
}
