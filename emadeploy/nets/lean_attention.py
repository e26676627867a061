"""The exact cross-task attention for training: the products of `affinity.attend`, one neighbour offset at a time.

Shape suffixes: B batch, T tasks, C channels of a task, H x W rows and columns of the map, P = H * W pixels, D the nine
3x3 offsets, S = T * C task channels. `padded` maps carry one pixel of zeros on every side.

`affinity.attend` forms the nine shifted copies of the features at once, and autograd would keep them, and the nine
weighted ones, for the backward pass: 18 T C floats per pixel. Here one shift lives at a time and the backward pass
makes it anew, which costs a copy and no product; only the gathered C x C matrices are kept, and they do not grow with
the map. It is also faster, as the shift stays in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_OFFSETS = range(9)


def attend_lean(unit_BTCHW: Tensor, value_BTCHW: Tensor, mix_PTD: Tensor, bias_P: Tensor) -> Tensor:
    """Attend exactly, keeping little for the backward pass; same arguments and result as `affinity.attend`.

    Under autocast the products run in autocast's type, and their sums over offsets in float32.
    """
    device = unit_BTCHW.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else unit_BTCHW.dtype
    # Casting outside the function leaves the gradients' way back to autograd.
    operands = (unit_BTCHW.to(dtype), value_BTCHW.to(dtype), mix_PTD, bias_P)
    with torch.autocast(device, enabled=False):
        return _LeanAttention.apply(*operands)


def _shifted(padded_BTCHW: Tensor, offset: int) -> Tensor:
    """Return the view feat[y + d] of a padded map, without its padding."""
    row, column = divmod(offset, 3)
    H, W = padded_BTCHW.shape[-2] - 2, padded_BTCHW.shape[-1] - 2
    return padded_BTCHW[..., row : row + H, column : column + W]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``, in one pass where the types agree."""
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(left @ right)


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which nine products are summed: nine roundings to bfloat16 would cost half the precision."""
    return torch.promote_types(dtype, torch.float32)


class _LeanAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, unit_BTCHW: Tensor, value_BTCHW: Tensor, mix_PTD: Tensor, bias_P: Tensor) -> Tensor:
        B, T, C, H, W = unit_BTCHW.shape
        padded_BTCHW = functional.pad(unit_BTCHW, (1, 1, 1, 1))
        mix_DTHW = mix_PTD.permute(2, 1, 0).reshape(9, T, H, W).to(unit_BTCHW.dtype)
        value_BSP = value_BTCHW.reshape(B, T * C, H * W)
        gather_DBSS = unit_BTCHW.new_empty(9, B, T * C, T * C)
        total = _sum_type(unit_BTCHW.dtype)
        attended_BSP = value_BSP.sum(2, keepdim=True, dtype=total) * bias_P.to(total)
        for d in _OFFSETS:
            key_BSP = _shifted(padded_BTCHW, d).reshape_as(value_BSP)
            torch.bmm(value_BSP, key_BSP.transpose(1, 2), out=gather_DBSS[d])
            query_BSP = (unit_BTCHW * mix_DTHW[d, :, None]).reshape_as(value_BSP)
            _add_product(attended_BSP, gather_DBSS[d], query_BSP)
        ctx.save_for_backward(unit_BTCHW, value_BTCHW, mix_PTD, bias_P, gather_DBSS)
        return attended_BSP.reshape(B, T, C, H, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unit_BTCHW, value_BTCHW, mix_PTD, bias_P, gather_DBSS = ctx.saved_tensors
        B, T, C, H, W = unit_BTCHW.shape
        total = _sum_type(unit_BTCHW.dtype)
        padded_BTCHW = functional.pad(unit_BTCHW, (1, 1, 1, 1))
        mix_DTHW = mix_PTD.permute(2, 1, 0).reshape(9, T, H, W).to(unit_BTCHW.dtype)
        value_BSP = value_BTCHW.reshape(B, T * C, H * W)

        # attended += sum_y value * bias
        grad_BSP = grad_BTCHW.reshape_as(value_BSP)
        grad_sum_BS = grad_BSP.to(total) @ bias_P.to(total)
        grad_bias_P = (value_BSP.sum(2, keepdim=True, dtype=total) * grad_BSP).sum((0, 1))
        grad_value_BSP = grad_sum_BS[:, :, None].repeat(1, 1, H * W)

        # attended += gather @ query, gather = value @ key^T, for every offset
        grad_BSP = grad_BSP.to(unit_BTCHW.dtype)
        grad_unit_BTCHW = torch.zeros_like(unit_BTCHW, dtype=total)
        grad_padded_BTCHW = torch.zeros_like(padded_BTCHW, dtype=total)
        grad_mix_DTP = mix_PTD.new_empty(9, T, H * W)
        for d in _OFFSETS:
            query_BSP = (unit_BTCHW * mix_DTHW[d, :, None]).reshape_as(value_BSP)
            grad_gather_BSS = grad_BSP @ query_BSP.transpose(1, 2)
            grad_query_BTCHW = (gather_DBSS[d].transpose(1, 2) @ grad_BSP).reshape_as(unit_BTCHW)
            grad_mix_DTP[d] = (grad_query_BTCHW * unit_BTCHW).sum((0, 2), dtype=total).flatten(1)
            grad_unit_BTCHW.addcmul_(grad_query_BTCHW.to(total), mix_DTHW[d, :, None].to(total))

            key_BSP = _shifted(padded_BTCHW, d).reshape_as(value_BSP)
            _add_product(grad_value_BSP, grad_gather_BSS, key_BSP)
            grad_key_BSP = grad_gather_BSS.transpose(1, 2) @ value_BSP
            _shifted(grad_padded_BTCHW, d).add_(grad_key_BSP.reshape_as(unit_BTCHW))

        grad_unit_BTCHW += grad_padded_BTCHW[..., 1:-1, 1:-1]
        return (
            grad_unit_BTCHW.to(unit_BTCHW.dtype),
            grad_value_BSP.to(value_BTCHW.dtype).reshape_as(value_BTCHW),
            grad_mix_DTP.permute(2, 1, 0),
            grad_bias_P.to(bias_P.dtype),
        )
