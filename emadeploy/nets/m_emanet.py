"""EMA-Net, multi scale (`m_emanet`): predictions at four scales, features handed from coarse to fine, one CTAL.

Shape suffixes: B batch, T tasks, C channels of the scale, M = T * C, H x W rows and columns at the scale, I/O inputs
and outputs of a linear layer.

Source: arXiv 2401.11124. Attribute names are those of the published checkpoints; scale s is 1 / 2^(s+2) of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.blocks import BasicBlock, Fuse, initialise, resize
from emadeploy.nets.ctal import CTAL
from emadeploy.nets.network import Network, build_backbone, ctal_scale, map_size, task_head

SCALES = range(4)
_COARSEST = SCALES[-1]


class ScaleHeads(nn.Module):
    """Per task the features of one scale, and a prediction made from them (deep supervision only)."""

    def __init__(self, spec: ModelSpec, channels: Sequence[int], scale: int) -> None:
        super().__init__()
        width = channels[scale]
        # Every scale but the coarsest sees, beside the backbone's map, what the next coarser scale hands on.
        inputs = width if scale == _COARSEST else width + channels[scale + 1]
        self.refinement = nn.ModuleDict(
            {task.name: nn.Sequential(BasicBlock(inputs, width), BasicBlock(width, width)) for task in spec.tasks}
        )
        self.decoders = nn.ModuleDict({task.name: nn.Conv2d(width, task.channels, 1) for task in spec.tasks})

    def forward(self, feat_BCHW: Tensor, handed: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the features per task, (B, C, H, W); ``handed`` holds those of the next coarser scale, if any."""
        feats = {}
        for task, layers in self.refinement.items():
            own = feat_BCHW
            if handed is not None:
                own = torch.cat([feat_BCHW, resize(handed[task], feat_BCHW.shape[-2:])], dim=1)
            feats[task] = layers(own)
        return feats


class SqueezeExcitation(nn.Module):
    """Scale every channel by a sigmoid of the map's channel means, (B, C, H, W) -> (B, C, H, W)."""

    reduction = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // self.reduction
        self.squeeze = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def initialise_own(self) -> None:
        """Turn every hidden unit to the side of its inputs.

        They are means after a ReLU, hence positive and much alike between images: a unit whose weights sum below zero
        would never fire nor learn, and the finest of these gates has two units.
        """
        weight_OI = self.squeeze[0].weight
        with torch.no_grad():
            weight_OI *= torch.where(weight_OI.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)

    def forward(self, feat_BCHW: Tensor) -> Tensor:
        gate_BC = self.squeeze(feat_BCHW.mean(dim=(2, 3)))
        return feat_BCHW * gate_BC[:, :, None, None]


class FeaturePropagation(nn.Module):
    """Mix the tasks' features of one scale before they are handed to the next finer one.

    Per task (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, tasks: Sequence[str], channels: int) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        joined = len(self.tasks) * channels
        hidden = joined // 4
        self.non_linear = nn.Sequential(
            BasicBlock(joined, hidden), BasicBlock(hidden, hidden), nn.Conv2d(hidden, joined, 1)
        )
        self.dimensionality_reduction = BasicBlock(joined, channels)
        self.se = nn.ModuleDict({task: SqueezeExcitation(channels) for task in self.tasks})

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        joined_BMHW = torch.cat([feats[task] for task in self.tasks], dim=1)
        B, M, H, W = joined_BMHW.shape
        T = len(self.tasks)
        # The groups of T are consecutive channels although `joined` is task after task: one group mixes channels of
        # one task. Published weights were trained that way, so it is kept.
        gate_BCTHW = self.non_linear(joined_BMHW).reshape(B, M // T, T, H, W).softmax(dim=2)
        gated_BMHW = (gate_BCTHW * joined_BMHW.reshape(B, M // T, T, H, W)).reshape(B, M, H, W)
        shared_BCHW = self.dimensionality_reduction(gated_BMHW)
        return {task: gate(shared_BCHW) + feats[task] for task, gate in self.se.items()}


class MEmaNet(Network):
    """EMA-Net with four scales. Outputs: `<task>` and `scale_<s>_<task>`, s = 0 (1/4 of the image) to 3 (1/32)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.backbone = build_backbone(spec)
        channels = self.backbone.channels
        for scale in SCALES[1:]:
            self.add_module(f"fpm_scale_{scale}", FeaturePropagation(spec.task_names, channels[scale]))
        for scale in SCALES:
            self.add_module(f"scale_{scale}", ScaleHeads(spec, channels, scale))
        self.scale_fusion = nn.ModuleDict({task.name: Fuse(channels, scale=ctal_scale(spec)) for task in spec.tasks})
        self.ctal = CTAL(
            spec.task_names,
            sum(channels),
            map_size(spec),
            gamma=spec.ctal.gamma,
            form=spec.ctal.form,
            fusion_name="task_fusion",
        )
        self.heads = nn.ModuleDict({task.name: task_head(task.channels) for task in spec.tasks})
        initialise(self)

    def _refine(self, pyramid: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return the tasks' features of every scale, finest first, computed from the coarsest down."""
        refined: list[dict[str, Tensor]] = []
        handed = None
        for scale in reversed(SCALES):
            feats = self.get_submodule(f"scale_{scale}")(pyramid[scale], handed)
            refined.insert(0, feats)
            if scale > 0:
                handed = self.get_submodule(f"fpm_scale_{scale}")(feats)
        return refined

    def predict(self, image_B3HW: Tensor, *, auxiliary: bool) -> dict[str, Tensor]:
        """Return raw maps: finals of twice CTAL's size (1/2 of the image), those of scale s at 1 / 2^(s+2) of it."""
        refined = self._refine(self.backbone(image_B3HW))
        fused = {task: fuse([feats[task] for feats in refined]) for task, fuse in self.scale_fusion.items()}
        distilled = self.ctal(fused)
        maps = {task: head(distilled[task]) for task, head in self.heads.items()}
        if auxiliary:
            for scale, feats in enumerate(refined):
                decoders = self.get_submodule(f"scale_{scale}").decoders
                maps |= {f"scale_{scale}_{task}": conv(feats[task]) for task, conv in decoders.items()}
        return maps
