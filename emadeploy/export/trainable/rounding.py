"""Rounding to integers and back, as Q/DQ says, with gradients that pass through it.

Sources: learned step size (Esser et al., arXiv 1902.08153) for the gradient of a scale; that scales are learned by
their logarithm, so that one rate suits all of them, is from trained quantization thresholds (Jain et al., arXiv
1903.08066).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Biases stay below this much of an int32, as `calibrate.insert` has them.
_BIAS_ROOM = 2.0**30


def rounded(value: Tensor, scale: Tensor, zero: int, lowest: int, highest: int) -> Tensor:
    """Return ``value`` behind QuantizeLinear and DequantizeLinear, to the bit: any shape, float32.

    ``scale`` is one number; integers run from ``lowest`` to ``highest``, and ``zero`` stands for 0. The gradient of the
    value passes where nothing is clipped. That of the scale is its effect on the value as rounded: the rounding error
    in steps where nothing is clipped, and the last step where something is.
    """
    result: Tensor = _Rounded.apply(value, scale, lowest - zero, highest - zero)
    return result


def rounded_weight(weight: Tensor, largest: int, *, per_channel: bool, least: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight (O, I, h, w) as its integers say, and their scales, (O,) or one number.

    The largest of each output channel, or of all, becomes the integer ``largest``, as `calibrate.insert` does it; no
    scale is below ``least``, where given. The gradient passes; scales follow the weights and have none.
    """
    magnitude = weight.detach().abs()
    scales = (magnitude.amax((1, 2, 3)) if per_channel else magnitude.amax()) / largest
    if least is not None:
        scales = torch.maximum(scales.double(), least).float()
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 1.0, scales)
    steps = scales.reshape(-1, 1, 1, 1) if per_channel else scales
    integers = (weight.detach() / steps).round().clamp(-largest, largest)
    passed: Tensor = _Passed.apply(weight, integers * steps)
    return passed, scales


def least_scale(bias: Tensor, scale_read: Tensor, *, per_channel: bool) -> Tensor:
    """Return the least scale of a weight whose products, of inputs on ``scale_read``, leave the bias its room."""
    most = bias.detach().abs()
    return (most if per_channel else most.max()).double() / (scale_read.detach().double() * _BIAS_ROOM)


def rounded_bias(bias: Tensor, scales: Tensor, scale_read: Tensor) -> Tensor:
    """Return a bias (O,) as its int32 says: on the scale of the products. The gradient passes."""
    steps = scales.double() * scale_read.detach().double()
    integers = (bias.detach().double() / steps).round()
    passed: Tensor = _Passed.apply(bias, integers.float() * steps.float())
    return passed


class _Rounded(torch.autograd.Function):
    """Keeps the value and the scale alone for its gradient: these maps are the largest of a network."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, least: int, most: int) -> Tensor:
        ctx.save_for_backward(value, scale)
        ctx.least, ctx.most = least, most
        return torch.div(value, scale).round_().clamp_(least, most).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        [gradient] = gradients
        value, scale = ctx.saved_tensors
        steps = value / scale
        inside = (steps >= ctx.least) & (steps <= ctx.most)
        effect = torch.where(inside, steps.round() - steps, steps.clamp(ctx.least, ctx.most))
        return gradient * inside, (gradient * effect).sum(), None, None


class _Passed(torch.autograd.Function):
    """Answers the second, and gives the first all of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, answer: Tensor) -> Tensor:
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
