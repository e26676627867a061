"""CTAL, the module that lets every task attend with the affinities of all tasks.

Shape suffixes: B batch, T tasks, C channels inside CTAL (128), H x W the map at 1/4 of the image, P = H * W pixels.

Attribute names are those of the published checkpoints. The fusion weights are tied to one image size, as they hold one
kernel per pixel; `emadeploy.nets.resize` carries them to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import CTAL_FORMS
from emadeploy.nets.affinity import attend, attend_by_affinity, normalise
from emadeploy.nets.lean_attention import attend_lean

CHANNELS = 128
"""Channels of every task inside CTAL."""


class CrossTaskAttention(nn.Module):
    """The three stages of CTAL at one scale: intra-task affinity, inter-task fusion, task-specific diffusion.

    Per task (B, C, H, W) -> (B, C, H, W): ``gamma * O + (1 - gamma) * X``.

    ``form`` chooses the arithmetic, at any time and with the same parameters: "exact" (linear in P, the default) or
    "affinity" (as published, with P x P matrices: the reference).
    """

    def __init__(
        self, tasks: Sequence[str], size: tuple[int, int], *, gamma: float, form: str, fusion_name: str
    ) -> None:
        super().__init__()
        if form not in CTAL_FORMS:
            raise SpecError(f"CTAL form {form!r} is unknown; known: {', '.join(CTAL_FORMS)}")
        self.tasks = tuple(tasks)
        self.size = size
        self.gamma = gamma
        self.form = form
        self.projection = nn.ModuleDict({task: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for task in self.tasks})
        # A grouped convolution over all P x P affinities; the exact form only reads its weight and bias.
        P, T = size[0] * size[1], len(self.tasks)
        self._fusion_name = fusion_name
        self.add_module(fusion_name, nn.Conv2d(P * T, P, 3, padding=1, groups=P))

    @property
    def fusion_layer(self) -> nn.Conv2d:
        """The fusion convolution under either of its names: weight (P, T, 3, 3), bias (P,)."""
        return self.get_submodule(self._fusion_name)

    def initialise_own(self) -> None:
        """Set the fusion to a similarity-weighted mean over all pixels, as large as what it is added to.

        Attended features are sums over P pixels, so weights of PyTorch's default size make ``gamma * O`` outweigh
        ``(1 - gamma) * X`` by two orders of magnitude, with a random sign per pixel. Here every kernel starts as the
        mean over its 9 T entries, divided by P and multiplied by ``(1 - gamma) / gamma``: smooth over the map, and both
        terms of the output of one size. The bias starts at zero. This project's choice; the function is unchanged.
        Measured once (64 x 64 images, 240 steps of Adam at 1e-3, from scratch): final losses of held-out images 14 %,
        8 % and 6 % (semseg, depth, normals) below those with PyTorch's default.
        """
        P, T = self.fusion_layer.weight.shape[:2]
        balance = (1 - self.gamma) / self.gamma if self.gamma else 1.0
        nn.init.constant_(self.fusion_layer.weight, balance / (9 * T * P))
        nn.init.zeros_(self.fusion_layer.bias)

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        feat_BTCHW = torch.stack([feats[task] for task in self.tasks], dim=1)
        value_BTCHW = torch.stack([self.projection[task](feats[task]) for task in self.tasks], dim=1)
        unit_BTCHW = normalise(feat_BTCHW)
        weight_PT33, bias_P = self.fusion_layer.weight, self.fusion_layer.bias
        if self.form == "affinity":
            attended_BTCHW = attend_by_affinity(unit_BTCHW, value_BTCHW, weight_PT33, bias_P)
        elif torch.is_grad_enabled() and not _is_traced():
            attended_BTCHW = attend_lean(unit_BTCHW, value_BTCHW, weight_PT33.flatten(2), bias_P)
        else:
            attended_BTCHW = attend(unit_BTCHW, value_BTCHW, weight_PT33.flatten(2), bias_P)
        out_BTCHW = self.gamma * attended_BTCHW + (1 - self.gamma) * feat_BTCHW
        return dict(zip(self.tasks, out_BTCHW.unbind(1), strict=True))


def _is_traced() -> bool:
    """Tell whether an exporter or compiler is recording: it must see plain operations, not a hand-written gradient."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _upsampler() -> nn.Sequential:
    """Return the layers after the attention: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    )


class CTAL(nn.Module):
    """Cross-Task Affinity Learning: per task (B, inputs, H, W) -> (B, 128, 2H, 2W).

    Args:
        tasks: task names; their order is the order of the fusion weights' second axis.
        inputs: channels of each task's features.
        size: rows and columns H, W of the features, 1/4 of the image.
        gamma: share of the attended features in the output, 0.05 as published.
        form: "exact" or "affinity", see `CrossTaskAttention`.
        fusion_name: name of the fusion convolution in the state dict, which differs between the published networks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        inputs: int,
        size: tuple[int, int],
        *,
        gamma: float = 0.05,
        form: str = "exact",
        fusion_name: str = "fusion",
    ) -> None:
        super().__init__()
        self.conv_in = nn.ModuleDict({task: nn.Conv2d(inputs, CHANNELS, 1) for task in tasks})
        self.spatial_att = CrossTaskAttention(tasks, size, gamma=gamma, form=form, fusion_name=fusion_name)
        self.conv_out = nn.ModuleDict({task: _upsampler() for task in tasks})

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        narrow = {task: conv(feats[task]) for task, conv in self.conv_in.items()}
        attended = self.spatial_att(narrow)
        return {task: layers(attended[task]) for task, layers in self.conv_out.items()}
