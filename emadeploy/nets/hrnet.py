"""HRNet-W18-Small-v2, the backbone of every network here.

Shape suffixes: B batch, C channels, H x W rows and columns of a feature map.

Four branches of 18, 36, 72 and 144 channels at 1/4, 1/8, 1/16 and 1/32 of the image exchange their features at the end
of every module. Source: Wang et al., Deep High-Resolution Representation Learning, arXiv 1908.07919; the variant with
*bilinear* upsampling in the exchange, as EMA-Net uses it. The ImageNet classification variant upsamples to the nearest
pixel instead: same names and weights, different output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from emadeploy.nets.blocks import BACKBONE_MOMENTUM, BasicBlock, Bottleneck, conv1x1, conv3x3, resize

CHANNELS = (18, 36, 72, 144)
"""Channels of the four branches, finest first."""

_BLOCKS_PER_BRANCH = 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=BACKBONE_MOMENTUM)


def _conv_norm_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(inputs, outputs, stride), _norm(outputs), nn.ReLU())


def _descend(inputs: int, outputs: int, steps: int) -> nn.Sequential:
    """Return ``steps`` stride-2 convolutions from a finer branch to a coarser one; ReLU between, none after the last.

    The channels change only in the last step, as in the public checkpoints.
    """
    chain = [_conv_norm_relu(inputs, inputs, stride=2) for _ in range(steps - 1)]
    chain.append(nn.Sequential(conv3x3(inputs, outputs, stride=2), _norm(outputs)))
    return nn.Sequential(*chain)


def _exchange_layer(target: int, source: int, channels: Sequence[int]) -> nn.Module:
    """Return the layer that carries branch ``source`` to ``target``; forward resizes what comes from coarser ones."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(conv1x1(channels[source], channels[target]), _norm(channels[target]))
    return _descend(channels[source], channels[target], steps=target - source)


class ExchangeModule(nn.Module):
    """One HRNet module: two BasicBlocks per branch, then every branch receives the sum of all of them.

    List of (B, C_s, H_s, W_s), finest first -> list of the same shapes.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(c, c, BACKBONE_MOMENTUM) for _ in range(_BLOCKS_PER_BRANCH))) for c in channels
        )
        scales = range(len(channels))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange_layer(target, source, channels) for source in scales) for target in scales
        )

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        feats = [branch(feat_BCHW) for branch, feat_BCHW in zip(self.branches, feats, strict=True)]
        fused = []
        for target_BCHW, layers in zip(feats, self.fuse_layers, strict=True):
            size = target_BCHW.shape[-2:]
            # `resize` acts on coarser maps alone: the others arrive at `size` already.
            terms = [resize(layer(feat_BCHW), size) for layer, feat_BCHW in zip(layers, feats, strict=True)]
            fused.append(functional.relu(sum(terms[1:], start=terms[0])))
        return fused


def _transition(existing: Sequence[int], wanted: Sequence[int]) -> nn.ModuleList:
    """Return the layers that open one more branch; branches that exist already pass through (no parameters)."""
    layers: list[nn.Module] = [
        nn.Identity() if have == want else _conv_norm_relu(have, want, stride=1)
        for have, want in zip(existing, wanted, strict=False)
    ]
    layers.append(nn.Sequential(_conv_norm_relu(existing[-1], wanted[-1], stride=2)))
    return nn.ModuleList(layers)


def _open_branch(transition: nn.ModuleList, feats: Sequence[Tensor]) -> list[Tensor]:
    """Apply a transition: the new branch, the coarsest, is made from the coarsest that exists."""
    sources = [*feats, feats[-1]]
    return [layer(feat_BCHW) for layer, feat_BCHW in zip(transition, sources, strict=True)]


class HRNet(nn.Module):
    """HRNet-W18-Small-v2: image (B, 3, H, W) -> four maps of `CHANNELS` channels at 1/4, 1/8, 1/16, 1/32.

    H and W must be multiples of 32, so that every branch is exactly half as large as the one before.
    """

    channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, 64, stride=2)
        self.bn1 = _norm(64)
        self.conv2 = conv3x3(64, 64, stride=2)
        self.bn2 = _norm(64)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, BACKBONE_MOMENTUM),
            Bottleneck(256, 64, BACKBONE_MOMENTUM),
        )
        stages = [CHANNELS[:2], CHANNELS[:3], CHANNELS[:4]]
        self.transition1 = _transition((256,), stages[0])
        self.transition2, self.transition3 = (_transition(have, want) for have, want in pairwise(stages))
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(ExchangeModule(channels) for _ in range(modules)))
            for channels, modules in zip(stages, (1, 3, 2), strict=True)
        )

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        stem = functional.relu(self.bn1(self.conv1(image_B3HW)))
        stem = functional.relu(self.bn2(self.conv2(stem)))
        feats = [self.layer1(stem)]
        feats = self.stage2(_open_branch(self.transition1, feats))
        feats = self.stage3(_open_branch(self.transition2, feats))
        return self.stage4(_open_branch(self.transition3, feats))
