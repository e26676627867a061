"""Exact rewrites of single layers, on PyTorch modules. Each returns a layer that computes what the old ones computed.

Shape suffixes: I/O input/output channels, h x w the kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.ConvTranspose2d
_Conv = TypeVar("_Conv", nn.Conv2d, nn.ConvTranspose2d)


def folded(conv: _Conv, norm: nn.BatchNorm2d) -> _Conv:
    """Return one convolution that computes ``norm(conv(x))`` with the norm's running statistics.

    The norm maps channel o to ``(y - mean) * scale + shift``, which weight and bias of the convolution take over. In
    float64, so that folding adds no error of its own.
    """
    return _with_weights(conv, *folded_weights(conv, norm))


def folded_weights(conv: Convolution, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of `folded`, float64, as functions of the layers' parameters that gradients follow."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics depends on its batch and cannot be folded")
    scale_O = (norm.running_var.double() + norm.eps).rsqrt()
    shift_O = torch.zeros_like(scale_O)
    if norm.affine:
        scale_O, shift_O = scale_O * norm.weight.double(), norm.bias.double()
    bias_O = torch.zeros_like(scale_O) if conv.bias is None else conv.bias.double()
    # A transposed convolution holds its output channels on the second axis.
    axes = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight.double() * scale_O.reshape(axes)
    return weight, (bias_O - norm.running_mean.double()) * scale_O + shift_O


def subpixel(conv: nn.ConvTranspose2d) -> nn.Conv2d:
    """Return the 1x1 convolution, I -> 4 O, that with `Shuffle` is a 2x2 transposed convolution of stride 2.

    With kernel = stride, each output pixel sees one input pixel through one tap of the kernel: the taps are four 1x1
    convolutions. Channel ``(2 row + column) O + o`` becomes pixel (row, column) of channel o. Engines quantise the
    convolution; the transposed one they leave in float.
    """
    plain = conv.padding == (0, 0) and conv.output_padding == (0, 0) and conv.groups == 1
    if not (conv.kernel_size == conv.stride == (2, 2) and plain):
        raise ValueError(f"{conv} is not a plain 2x2 transposed convolution of stride 2")
    inputs, outputs = conv.weight.shape[:2]
    pointwise = nn.Conv2d(inputs, 4 * outputs, 1, bias=conv.bias is not None, dtype=conv.weight.dtype)
    bias = None if conv.bias is None else conv.bias.repeat(4)
    return _with_weights(pointwise, subpixel_weight(conv.weight), bias)


def subpixel_weight(weight_IOhw: Tensor) -> Tensor:
    """Return the weight of `subpixel`, (4 O, I, 1, 1), of that of a 2x2 transposed convolution."""
    inputs, outputs = weight_IOhw.shape[:2]
    return weight_IOhw.permute(2, 3, 1, 0).reshape(4 * outputs, inputs, 1, 1)


class Shuffle(nn.Module):
    """Four channels become one of twice the size, (1, 4 O, H, W) -> (1, O, 2 H, 2 W); what a tap makes stays together.

    `nn.PixelShuffle` takes the four from neighbouring channels. Where channels are innermost in memory, that moves
    single bytes; here a pixel's O channels move as one. Measured in OpenVINO int8: a ninth of the time.
    """

    def forward(self, taps_14OHW: Tensor) -> Tensor:
        _, fourfold, H, W = taps_14OHW.shape
        O = fourfold // 4  # noqa: E741 - a suffix, as in the names
        if torch.onnx.is_in_onnx_export():
            attributes: dict[str, int | str] = {"blocksize": 2, "mode": "DCR"}
            shape = (1, O, 2 * H, 2 * W)
            return torch.onnx.ops.symbolic(
                "DepthToSpace", (taps_14OHW,), attributes, dtype=taps_14OHW.dtype, shape=shape
            )
        taps_1hwOHW = taps_14OHW.reshape(1, 2, 2, O, H, W)
        return taps_1hwOHW.permute(0, 3, 4, 1, 5, 2).reshape(1, O, 2 * H, 2 * W)


def shuffled(upsampler: nn.Module) -> nn.Sequential:
    """Return CTAL's upsampler (transposed conv, norm, ReLU, conv) with `subpixel` in place of the transposed conv.

    The norm must be folded already. The ReLU comes before the shuffle, which moves values and changes none: there,
    engines fuse it with the convolution.
    """
    transposed, _, relu, conv = upsampler.children()
    assert isinstance(transposed, nn.ConvTranspose2d)
    return nn.Sequential(subpixel(transposed), relu, Shuffle(), conv)


def fold_batch_norms(model: nn.Module) -> int:
    """Fold every BatchNorm of ``model`` that follows a convolution into it, in place; return how many were folded.

    A BatchNorm follows a convolution where it is next to it in a Sequential, or named like it: ``conv1`` and ``bn1``.
    """
    pairs = list(convolutions_with_norm(model))
    for parent, conv_name, norm_name in pairs:
        setattr(parent, conv_name, folded(getattr(parent, conv_name), getattr(parent, norm_name)))
        setattr(parent, norm_name, nn.Identity())
    return len(pairs)


def convolutions_with_norm(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield each convolution that a BatchNorm follows: the module that holds both, and their names in it."""
    for parent in model.modules():
        children = dict(parent.named_children())
        if isinstance(parent, nn.Sequential):
            candidates = list(pairwise(children))
        else:
            candidates = [(name.replace("bn", "conv"), name) for name in children if name.startswith("bn")]
        for conv, norm in candidates:
            if isinstance(children.get(conv), Convolution) and isinstance(children[norm], nn.BatchNorm2d):
                yield parent, conv, norm


def _with_weights(like: _Conv, weight: Tensor, bias: Tensor | None) -> _Conv:
    """Return a convolution with the settings and the type of ``like`` and these weights, which are not trainable."""
    conv = copy.deepcopy(like)
    dtype = like.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return conv
