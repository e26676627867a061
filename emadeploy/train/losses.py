"""The losses of EMA-Net, one per task kind, and how they add up (EMA_NET: "Tasks, losses, metrics").

Legend: B batch, C channels, H x W image. Every loss is a mean over the valid pixels of the whole batch, and exactly
zero, with zero gradient, where no pixel is valid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own habit

from emadeploy.contract.spec import TaskSpec

#: Labels that no loss and no metric looks at.
IGNORE = 255
#: Share of the positives in the balanced edge loss.
EDGE_POSITIVE_WEIGHT = 0.95


def task_loss(raw_BCHW: Tensor, truth: Tensor, kind: str) -> Tensor:
    """Return the loss of one task: raw maps (B, C, H, W) against the truth of its kind, a scalar.

    Truth: labels, edges and saliency int64 (B, H, W) with 255 ignored; depth (B, 1, H, W), 0 invalid; normals
    (B, 3, H, W) unit vectors, 0 invalid.
    """
    return _LOSSES[kind](raw_BCHW, truth)


def _mean_over(valid: Tensor, loss: Tensor) -> Tensor:
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def _cross_entropy(raw_BCHW: Tensor, label_BHW: Tensor) -> Tensor:
    loss_BHW = F.cross_entropy(raw_BCHW, label_BHW, ignore_index=IGNORE, reduction="none")
    return _mean_over((label_BHW != IGNORE).to(loss_BHW.dtype), loss_BHW)


def _balanced_cross_entropy(raw_BCHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Cross-entropy of two classes, each weighted by the share of the other one among the valid pixels."""
    valid_BHW = label_BHW != IGNORE
    salient_share = ((label_BHW == 1) & valid_BHW).sum() / valid_BHW.sum().clamp(min=1)
    weight_BHW = torch.where(label_BHW == 1, 1 - salient_share, salient_share) * valid_BHW
    loss_BHW = F.cross_entropy(raw_BCHW, label_BHW, ignore_index=IGNORE, reduction="none")
    return _mean_over(valid_BHW.to(loss_BHW.dtype), loss_BHW * weight_BHW)


def _absolute(raw_B1HW: Tensor, depth_B1HW: Tensor) -> Tensor:
    return _mean_over((depth_B1HW != 0).to(raw_B1HW.dtype), (raw_B1HW - depth_B1HW).abs())


def _one_minus_dot(raw_B3HW: Tensor, normal_B3HW: Tensor) -> Tensor:
    valid_BHW = (normal_B3HW != 0).any(dim=1).to(raw_B3HW.dtype)
    dot_BHW = (F.normalize(raw_B3HW, dim=1) * normal_B3HW).sum(dim=1)
    return _mean_over(valid_BHW, 1 - dot_BHW)


def _edge(raw_B1HW: Tensor, edge_BHW: Tensor) -> Tensor:
    raw_BHW, target_BHW = raw_B1HW[:, 0], (edge_BHW == 1).to(raw_B1HW.dtype)
    weight_BHW = torch.where(edge_BHW == 1, EDGE_POSITIVE_WEIGHT, 1 - EDGE_POSITIVE_WEIGHT)
    loss_BHW = F.binary_cross_entropy_with_logits(raw_BHW, target_BHW, reduction="none")
    return _mean_over((edge_BHW != IGNORE).to(raw_BHW.dtype), loss_BHW * weight_BHW)


_LOSSES = {
    "semseg": _cross_entropy,
    "human_parts": _cross_entropy,
    "depth": _absolute,
    "normals": _one_minus_dot,
    "edge": _edge,
    "saliency": _balanced_cross_entropy,
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
        """Return the total loss and, per task, the loss of the final prediction. A task without truth is left out."""
        final: dict[str, Tensor] = {}
        total = torch.zeros((), device=next(iter(raw.values())).device)
        for task in self.tasks:
            if task.name not in truth:
                continue
            target = truth[task.name]
            final[task.name] = task_loss(raw[task.name], target, task.kind)
            initial = [task_loss(raw[name], target, task.kind) for name in initial_names(raw, task.name)]
            loss = final[task.name] + (torch.stack(initial).mean() if initial else 0)
            if self.log_variances is None:
                total = total + task.weight * loss
            else:
                log_variance = self.log_variances[task.name]
                total = total + 0.5 * torch.exp(-log_variance) * loss + 0.5 * log_variance
        return total, final


def initial_names(raw: Mapping[str, Tensor], task: str) -> list[str]:
    """Return the names of the initial predictions of ``task``: ``initial_<task>`` or ``scale_<s>_<task>``."""
    wanted = {f"initial_{task}", *(f"scale_{scale}_{task}" for scale in range(4))}
    return [name for name in raw if name in wanted]
