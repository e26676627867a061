"""Building blocks shared by the backbone and the heads: residual blocks, bilinear resizing, multi-scale fusion.

Shape suffixes: B batch, I/O input/output channels, H x W rows and columns of a feature map.

Attribute names (``conv1``, ``bn1``, ``downsample`` ...) are part of the contract: they are the names of the public
checkpoints, so renaming one breaks the loading of published weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONE_MOMENTUM = 0.01
"""BatchNorm momentum inside the backbone; everything else keeps PyTorch's 0.1 (EMA_NET.md, notation)."""

RESIDUAL_SCALE = 0.25
"""Initial scale of what a residual block adds. Starting small eases training (Goyal et al., arXiv 1706.02677, start at
zero); it also keeps a network that has not learned its BatchNorm statistics yet within the range of float16, and being
above zero, every layer takes part in what an untrained network answers."""


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3x3 convolution without bias (a BatchNorm always follows it)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1x1 convolution without bias (a BatchNorm always follows it)."""
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def resize(feat_BIHW: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly (``align_corners=False``) to ``size = (rows, columns)``; a map of that size passes through."""
    if tuple(feat_BIHW.shape[-2:]) == tuple(size):
        return feat_BIHW
    return functional.interpolate(feat_BIHW, size=tuple(size), mode="bilinear", align_corners=False)


def _shortcut(inputs: int, outputs: int, momentum: float) -> nn.Sequential | None:
    """Return the 1x1 conv + BatchNorm that matches a block's input to its output, or None where they agree already."""
    if inputs == outputs:
        return None
    return nn.Sequential(conv1x1(inputs, outputs), nn.BatchNorm2d(outputs, momentum=momentum))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual sum, (B, I, H, W) -> (B, O, H, W); ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs)
        self.bn1 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.downsample = _shortcut(inputs, outputs, momentum)

    def forward(self, feat_BIHW: Tensor) -> Tensor:
        skip_BOHW = feat_BIHW if self.downsample is None else self.downsample(feat_BIHW)
        out_BOHW = functional.relu(self.bn1(self.conv1(feat_BIHW)))
        out_BOHW = self.bn2(self.conv2(out_BOHW))
        return functional.relu(out_BOHW + skip_BOHW)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a residual sum, (B, I, H, W) -> (B, 4 * planes, H, W); ReLU after the sum."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, momentum: float = 0.1) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = conv1x1(inputs, planes)
        self.bn1 = nn.BatchNorm2d(planes, momentum=momentum)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes, momentum=momentum)
        self.conv3 = conv1x1(planes, outputs)
        self.bn3 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.downsample = _shortcut(inputs, outputs, momentum)

    def forward(self, feat_BIHW: Tensor) -> Tensor:
        skip_BOHW = feat_BIHW if self.downsample is None else self.downsample(feat_BIHW)
        out_BOHW = functional.relu(self.bn1(self.conv1(feat_BIHW)))
        out_BOHW = functional.relu(self.bn2(self.conv2(out_BOHW)))
        out_BOHW = self.bn3(self.conv3(out_BOHW))
        return functional.relu(out_BOHW + skip_BOHW)


def concatenate_scales(feats: Sequence[Tensor], scale: int = 0) -> Tensor:
    """Bring all maps to the size of map ``scale`` and concatenate them: (B, C_s, H_s, W_s) -> (B, sum C_s, H, W).

    Coarser maps are resized bilinearly, as published; finer ones, twice as large with each scale, averaged.
    """
    size = feats[scale].shape[-2:]
    averaged = [functional.avg_pool2d(feat_BCHW, 2 ** (scale - finer)) for finer, feat_BCHW in enumerate(feats[:scale])]
    return torch.cat([*averaged, *(resize(feat_BCHW, size) for feat_BCHW in feats[scale:])], dim=1)


class Fuse(nn.Module):
    """Concatenate four scales and mix them: 1x1 conv with bias, BatchNorm, ReLU.

    That happens at the size of map ``scale``: the finest, as published, unless told otherwise. ``outputs`` appends a
    prediction layer (index 3 of ``last_layer``): that is the head of the baselines.
    """

    def __init__(self, channels: Sequence[int], outputs: int | None = None, scale: int = 0) -> None:
        super().__init__()
        self.scale, total = scale, sum(channels)
        layers = [nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU()]
        if outputs is not None:
            layers.append(nn.Conv2d(total, outputs, 1))
        self.last_layer = nn.Sequential(*layers)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        return self.last_layer(concatenate_scales(feats, self.scale))


class Initialised(nn.Module):
    """Base of modules that have set all their weights themselves, by rules that are not ours."""


@runtime_checkable
class OwnInitialisation(Protocol):
    """A module that sets some of its weights by a rule of its own, after the common one."""

    def initialise_own(self) -> None:
        """Set those weights."""


def initialise(module: nn.Module) -> None:
    """Give every convolution and linear layer under ``module`` He-normal weights (fan-in) and zero bias.

    BatchNorm keeps PyTorch's defaults, but for the last of each residual block: its scale starts at `RESIDUAL_SCALE`.
    Modules with `OwnInitialisation` then have their say; what is `Initialised` stays as it is.
    """
    for layer in _uninitialised(module):
        if isinstance(layer, BasicBlock):
            nn.init.constant_(layer.bn2.weight, RESIDUAL_SCALE)
        if isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, RESIDUAL_SCALE)
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # PyTorch counts the fan of a transposed convolution from its output side; with kernel = stride every
            # output pixel sees exactly one input pixel, so its true fan-in is the number of input channels.
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=(2.0 / layer.in_channels) ** 0.5)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in _uninitialised(module):
        if isinstance(layer, OwnInitialisation):
            layer.initialise_own()


def _uninitialised(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all below it, but for what is `Initialised`."""
    if not isinstance(module, Initialised):
        yield module
        for child in module.children():
            yield from _uninitialised(child)
