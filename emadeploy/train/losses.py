"""The losses of EMA-Net, one per task kind, and how they add up (EMA_NET: "Tasks, losses, metrics").

Legend: B batch, C channels, H x W image. Every loss is a mean over the valid pixels of the whole batch, that of all
processes together, and exactly zero, with zero gradient, where no pixel is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own habit

from emadeploy.contract.spec import TaskSpec
from emadeploy.train import processes

#: Labels that no loss and no metric looks at.
IGNORE = 255
#: Share of the positives in the balanced edge loss.
EDGE_POSITIVE_WEIGHT = 0.95


class Weights(NamedTuple):
    """What each pixel's loss of one task counts: ``per_pixel`` (B, H, W), 0 where there is no truth.

    They sum to 1, but for edges and saliency, whose two classes are balanced: there they sum to less.

    With several processes they are those of the whole batch, times the number of processes: the mean over the
    processes, which is what their gradients become, is the mean over all valid pixels. ``has_truth`` is 0 or 1.
    """

    per_pixel: Tensor
    has_truth: Tensor


def task_loss(raw_BCHW: Tensor, truth: Tensor, kind: str) -> Tensor:
    """Return the loss of one task: raw maps (B, C, H, W) against the truth of its kind, a scalar.

    Truth: labels, edges and saliency int64 (B, H, W) with 255 ignored; depth (B, 1, H, W), 0 invalid; normals
    (B, 3, H, W) unit vectors, 0 invalid.
    """
    return _weighted(raw_BCHW, truth, kind, pixel_weights(truth, kind))


def valid_pixels(truth: Tensor, kind: str) -> Tensor:
    """Return which pixels have a truth, bool (B, H, W)."""
    if kind in ("depth", "normals"):
        return (truth != 0).any(dim=1)
    return truth != IGNORE


def pixel_weights(truth: Tensor, kind: str) -> Weights:
    """Return what the pixels of one task count, from its truth alone."""
    valid_BHW = valid_pixels(truth, kind)
    sums = [valid_BHW.sum()]
    if kind == "saliency":
        sums.append(((truth == 1) & valid_BHW).sum())
    count, *salient = processes.total(torch.stack(sums).to(torch.float32)).unbind()
    map_BHW = valid_BHW * (processes.count() / count.clamp(min=1))
    if kind == "edge":
        map_BHW = map_BHW * torch.where(truth == 1, EDGE_POSITIVE_WEIGHT, 1 - EDGE_POSITIVE_WEIGHT)
    if kind == "saliency":
        # Each of the two classes weighs what the share of the other one is.
        salient_share = salient[0] / count.clamp(min=1)
        map_BHW = map_BHW * torch.where(truth == 1, 1 - salient_share, salient_share)
    return Weights(map_BHW, count.clamp(max=1))


def _weighted(raw_BCHW: Tensor, truth: Tensor, kind: str, weights: Weights) -> Tensor:
    loss_BHW = _PIXEL_LOSSES[kind](raw_BCHW, truth)
    return (loss_BHW * weights.per_pixel.to(loss_BHW.dtype)).sum()


def _cross_entropy(raw_BCHW: Tensor, label_BHW: Tensor) -> Tensor:
    return F.cross_entropy(raw_BCHW, label_BHW, ignore_index=IGNORE, reduction="none")


def _absolute(raw_B1HW: Tensor, depth_B1HW: Tensor) -> Tensor:
    return (raw_B1HW - depth_B1HW).abs()[:, 0]


def _one_minus_dot(raw_B3HW: Tensor, normal_B3HW: Tensor) -> Tensor:
    return 1 - (F.normalize(raw_B3HW, dim=1) * normal_B3HW).sum(dim=1)


def _edge(raw_B1HW: Tensor, edge_BHW: Tensor) -> Tensor:
    target_BHW = (edge_BHW == 1).to(raw_B1HW.dtype)
    return F.binary_cross_entropy_with_logits(raw_B1HW[:, 0], target_BHW, reduction="none")


#: Task kind -> the loss of every pixel, (B, H, W), whether it has a truth or not.
_PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "semseg": _cross_entropy,
    "human_parts": _cross_entropy,
    "depth": _absolute,
    "normals": _one_minus_dot,
    "edge": _edge,
    "saliency": _cross_entropy,
}


class MultiTaskLoss(nn.Module):
    """Adds up the tasks: ``sum_t w_t * (initial_t + final_t)``.

    In the multi-scale network the initial loss is the mean over its scales; the baselines have none. With
    ``weighting='uncertainty'`` a learned log-variance ``s_t`` per task replaces the fixed weight (homoscedastic
    uncertainty, Kendall et al. 2018): ``exp(-s_t) / 2 * loss_t + s_t / 2``.
    """

    def __init__(self, tasks: tuple[TaskSpec, ...], weighting: str) -> None:
        super().__init__()
        self.tasks = tasks
        self.log_variances = (
            nn.ParameterDict({task.name: nn.Parameter(torch.zeros(())) for task in tasks})
            if weighting == "uncertainty"
            else None
        )

    def forward(self, raw: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and, per task, the loss of the final prediction.

        A task that ``truth`` lacks is left out. One without a valid pixel in the whole batch adds nothing, and moves
        nothing: not its learned weight either.
        """
        final: dict[str, Tensor] = {}
        total = torch.zeros((), device=next(iter(raw.values())).device)
        for task in self.tasks:
            if task.name not in truth:
                continue
            target = truth[task.name]
            weights = pixel_weights(target, task.kind)
            final[task.name] = _weighted(raw[task.name], target, task.kind, weights)
            initial = [_weighted(raw[name], target, task.kind, weights) for name in initial_names(raw, task.name)]
            loss = final[task.name] + (torch.stack(initial).mean() if initial else 0)
            if self.log_variances is None:
                total = total + task.weight * loss
            else:
                log_variance = self.log_variances[task.name]
                total = total + 0.5 * torch.exp(-log_variance) * loss + 0.5 * weights.has_truth * log_variance
        return total, final


def initial_names(raw: Mapping[str, Tensor], task: str) -> list[str]:
    """Return the names of the initial predictions of ``task``: ``initial_<task>`` or ``scale_<s>_<task>``."""
    wanted = {f"initial_{task}", *(f"scale_{scale}_{task}" for scale in range(4))}
    return [name for name in raw if name in wanted]
