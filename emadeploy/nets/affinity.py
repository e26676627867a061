"""Cross-task attention through pixel affinities: the published form, and the same function without its N x N matrices.

Shape suffixes: B batch, T tasks, C channels of a task (128), H x W rows and columns of the feature map, P = H * W
pixels, R kernels per task (9 in the exact form), S = T * C task channels, E = T * R * C the side that the two products
of `attend` sum or produce.

Every pixel i mixes the T affinity maps of its own row with its own T x 3 x 3 kernel, and attends to the values with the
mixture; nothing is divided by the number of pixels and there is no softmax. That makes everything linear in the second
pixel y, so the sum over y can be taken first:

    M[i,y] = b[i] + sum_t sum_d w[i,t,d] * F_t[:,i] . F_t[:,y+d]            (P x P: `attend_by_affinity`)
    O_s[:,i] = sum_y V_s[:,y] M[i,y]
             = b[i] * sum_y V_s[:,y] + sum_t sum_d w[i,t,d] * G[t,d,s]^T F_t[:,i]
    G[t,d,s] = sum_y F_t[:,y+d] V_s[:,y]^T                                  (C x C: `attend`)

Sources: arXiv 2401.11124 for the function; the rewrite is this project's (docs: CTAL without its affinity matrices).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-12
"""Lower bound of a pixel's feature norm, so that an all-zero pixel stays zero instead of becoming NaN."""


def normalise(feat_BTCHW: Tensor) -> Tensor:
    """Scale every pixel's features to unit length over C: x / max(||x||, 1e-12)."""
    return functional.normalize(feat_BTCHW, dim=2, eps=EPSILON)


def attend_by_affinity(unit_BTCHW: Tensor, value_BTCHW: Tensor, weight_PT33: Tensor, bias_P: Tensor) -> Tensor:
    """Attend as published, affinities and all: the readable reference, quadratic in the number of pixels.

    Args:
        unit_BTCHW: features of unit length per pixel (`normalise`).
        value_BTCHW: values, the 3x3 projection of the un-normalised features.
        weight_PT33: one T x 3 x 3 fusion kernel per pixel.
        bias_P: one fusion bias per pixel.

    Returns:
        attended_BTCHW: sums over all P pixels, so their size grows with P.
    """
    B, T, C, H, W = unit_BTCHW.shape
    P = H * W
    unit_BTCP = unit_BTCHW.flatten(3)
    affinity_BTPP = unit_BTCP.transpose(2, 3) @ unit_BTCP
    # Row i of each affinity is an H x W map; pixel i's group of the convolution sees those T maps, in task order.
    maps = affinity_BTPP.transpose(1, 2).reshape(B, P * T, H, W)
    mixed_BPHW = functional.conv2d(maps, weight_PT33, bias_P, padding=1, groups=P)
    mixed_B1PP = mixed_BPHW.reshape(B, 1, P, P)
    attended_BTCP = value_BTCHW.flatten(3) @ mixed_B1PP.transpose(2, 3)
    return attended_BTCP.reshape(B, T, C, H, W)


def neighbours(feat_BTCHW: Tensor) -> Tensor:
    """Return the nine shifted copies of a map, (B, T, 9, C, H, W): copy d holds feat[y + d], zero outside the map.

    The offsets d run over rows, then columns, like the weights of a 3x3 convolution.
    """
    H, W = feat_BTCHW.shape[-2:]
    padded = functional.pad(feat_BTCHW, (1, 1, 1, 1))
    return torch.stack([padded[..., y : y + H, x : x + W] for y in range(3) for x in range(3)], dim=2)


def respond(feat_BTCHW: Tensor, kernels_TR33: Tensor) -> Tensor:
    """Filter each task's map with its R kernels, the same for every channel: (B, T, R, C, H, W).

    With the nine one-hot kernels this is `neighbours`.
    """
    B, T, C, H, W = feat_BTCHW.shape
    R = kernels_TR33.shape[1]
    weight_TRC133 = kernels_TR33.reshape(T, R, 1, 1, 3, 3).expand(T, R, C, 1, 3, 3)
    feats = feat_BTCHW.unsqueeze(2).expand(B, T, R, C, H, W).reshape(B, T * R * C, H, W)
    filtered = functional.conv2d(feats, weight_TRC133.reshape(T * R * C, 1, 3, 3), padding=1, groups=T * R * C)
    return filtered.reshape(B, T, R, C, H, W)


def attend(
    unit_BTCHW: Tensor, value_BTCHW: Tensor, mix_PTR: Tensor, bias_P: Tensor, kernels_TR33: Tensor | None = None
) -> Tensor:
    """Attend in time and memory linear in the number of pixels: two matrix products, the graph that is deployed.

    Args:
        unit_BTCHW: features of unit length per pixel (`normalise`).
        value_BTCHW: values, the 3x3 projection of the un-normalised features.
        mix_PTR: how each pixel mixes the kernels. Without ``kernels_TR33`` these are the fusion kernels themselves,
            ``weight_PT33.flatten(2)``: R = 9, the exact form.
        bias_P: one fusion bias per pixel.
        kernels_TR33: R basis kernels per task, such that ``sum_r mix[p, t, r] * kernels[t, r]`` is, or approximates,
            the fusion kernel of pixel p. Both products shrink with R.

    Returns:
        attended_BTCHW. The exact form agrees with `attend_by_affinity` to 1e-12 in float64, relative L2.
    """
    B, T, C, H, W = unit_BTCHW.shape
    P, _, R = mix_PTR.shape
    mix_TR1HW = mix_PTR.permute(1, 2, 0).reshape(T, R, 1, H, W)
    key_BTRCHW = neighbours(unit_BTCHW) if kernels_TR33 is None else respond(unit_BTCHW, kernels_TR33)
    key_BEP = key_BTRCHW.reshape(B, T * R * C, P)
    query_BEP = (unit_BTCHW.unsqueeze(2) * mix_TR1HW).reshape(B, T * R * C, P)
    value_BSP = value_BTCHW.reshape(B, T * C, P)
    gather_BSE = value_BSP @ key_BEP.transpose(1, 2)
    attended_BSP = gather_BSE @ query_BEP + value_BSP.sum(2, keepdim=True) * bias_P
    return attended_BSP.reshape(B, T, C, H, W)
