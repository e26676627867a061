"""CTAL's weights at another image size.

Shape suffixes: T tasks, H x W rows and columns of the map at 1/4 of the image, P = H * W pixels.

The fusion holds one kernel and one bias per pixel, so a network is tied to its image size. Read as a map of 9 T + 1
channels over the grid, it can be resized like any map. Accuracy at the new size is to be measured, never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emadeploy.contract.errors import ArtifactError
from emadeploy.nets.blocks import resize
from emadeploy.nets.network import MAP_STRIDE

_FUSION_NAMES = ("spatial_att.fusion", "spatial_att.task_fusion")

Size = tuple[int, int]
"""Rows and columns."""


def resize_fusion(weight_PT33: Tensor, bias_P: Tensor, old_hw: Size, new_hw: Size) -> tuple[Tensor, Tensor]:
    """Return fusion weight and bias for a map of ``new_hw`` instead of ``old_hw`` rows and columns.

    Bilinear over the grid, times P_old / P_new: the attended features are sums over all pixels, and keep their size.

    Raises:
        ArtifactError: the weights do not have one kernel per pixel of ``old_hw``.
    """
    (old_h, old_w), (new_h, new_w) = old_hw, new_hw
    P, T = weight_PT33.shape[:2]
    if old_h * old_w != P or bias_P.shape != (P,):
        raise ArtifactError(
            f"fusion weights hold {P} kernels and {bias_P.numel()} biases, "
            f"expected one each for the {old_h} x {old_w} = {old_h * old_w} pixels of the map"
        )
    channels = torch.cat([weight_PT33.reshape(P, 9 * T), bias_P[:, None]], dim=1)
    grid = channels.T.reshape(1, 9 * T + 1, old_h, old_w)
    scaled = resize(grid, new_hw) * (P / (new_h * new_w))
    channels = scaled.reshape(9 * T + 1, new_h * new_w).T
    return channels[:, :-1].reshape(-1, T, 3, 3).contiguous(), channels[:, -1].contiguous()


def resize_state_dict(
    state: Mapping[str, Tensor], old_size: Size, new_size: Size, stride: int = MAP_STRIDE
) -> dict[str, Tensor]:
    """Return the state dict of any network for images of ``new_size`` = (height, width) instead of ``old_size``.

    ``stride`` is that of CTAL's map, pixels of the image per pixel of it. Only the fusion weights change; the
    baselines have none and come back as they are.

    Raises:
        ArtifactError: the fusion weights do not belong to images of ``old_size``.
    """
    old_hw, new_hw = ((height // stride, width // stride) for height, width in (old_size, new_size))
    resized = dict(state)
    for name, weight_PT33 in state.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and layer.endswith(_FUSION_NAMES):
            bias = f"{layer}.bias"
            resized[name], resized[bias] = resize_fusion(weight_PT33, state[bias], old_hw, new_hw)
    return resized
