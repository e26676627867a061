"""CTAL in deployment form for low precision: the same function, laid out for engines that run int8 products.

Shape suffixes: T tasks, S tasks that are answered (S <= T), C channels of a task, H x W rows and columns of the map,
N = H * W pixels, R = S * C channels of all values, F kernels of a task, E channels of all keys (T * F * C in all).

`attention` says what is computed. Here every product runs once over plain matrices, without tiles, whose points would
magnify the rounding of int8 and float16:

    K   = the features seen through every kernel            (N, E)     `Shifts` or `Filters`
    G   = V^T K                                             (R, E)     `gather`
    Q   = the features, scaled by each pixel's mixture      (N, E)
    O_s = Q G_s^T                                           (N, C)     `spread`, one product per task

A row is a pixel: convolutions in int8 keep their maps with the channels innermost, and a matrix (N, E) *is* such a map,
so that engines drop the transpositions that stand in the graph. For that, all that is not a product is written on maps
(1, C, H, W), and every transposition has one reader. Measured in OpenVINO int8 at 288 x 384: 12 % off the whole network
against rows that are channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emadeploy.export.attention import OFFSETS, Product, fusion_maps
from emadeploy.nets.affinity import EPSILON
from emadeploy.nets.ctal import CrossTaskAttention


class Shifts(nn.Module):
    """The exact keys: the features of all tasks, (1, T * C, H, W), moved by each offset of a 3x3 kernel, zero outside.

    Returns one map per offset. ``F`` = 9 kernels per task, which have a single entry.
    """

    def forward(self, units: Sequence[Tensor]) -> list[Tensor]:
        unit_1EHW = torch.cat(list(units), dim=1)
        H, W = unit_1EHW.shape[-2:]
        padded = functional.pad(unit_1EHW, (1, 1, 1, 1))
        return [padded[:, :, row : row + H, column : column + W] for row, column in OFFSETS]


class Filters(nn.Module):
    """The keys of a kernel basis: the features of task t through its kernels, the same for every channel.

    ``kernels`` holds (F, 3, 3) per task; F may differ between tasks. Returns one map of all tasks, (1, E, H, W).
    """

    def __init__(self, kernels: Sequence[Tensor], channels: int) -> None:
        super().__init__()
        self.filter = nn.ModuleList(
            nn.ModuleList(_depthwise(kernel_33, channels) for kernel_33 in kernel_F33) for kernel_F33 in kernels
        )

    def forward(self, units: Sequence[Tensor]) -> list[Tensor]:
        # Task by task, as `mixtures` has them.
        filters = [(depthwise, unit) for row, unit in zip(self.filter, units, strict=True) for depthwise in row]
        return [torch.cat([depthwise(unit) for depthwise, unit in filters], dim=1)]


class Mix(nn.Module):
    """One factor per pixel: (1, C, H, W) times (1, 1, H, W)."""

    mix: Tensor

    def __init__(self, mix_11HW: Tensor) -> None:
        super().__init__()
        self.register_buffer("mix", mix_11HW.contiguous())

    def forward(self, feat_1CHW: Tensor, inverse_11HW: Tensor) -> Tensor:
        # The two small maps first: the product with the features is then the only one of full size.
        return feat_1CHW * (inverse_11HW * self.mix)


class Gather(nn.Module):
    """The sums over all pixels: values (N, R) and one key matrix (N, E_k) per product -> (R, E)."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.product = nn.ModuleList(Product() for _ in range(products))

    def forward(self, value_NR: Tensor, keys: Sequence[Tensor]) -> Tensor:
        value_RN = value_NR.T
        gathered = [product(value_RN, key_NE) for product, key_NE in zip(self.product, keys, strict=True)]
        return gathered[0] if len(gathered) == 1 else torch.cat(gathered, dim=1)


class Spread(nn.Module):
    """Every pixel's answer for one task: queries (N, E) and the task's rows (C, E) of the sums -> (N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.product = Product()

    def forward(self, query_NE: Tensor, gathered_CE: Tensor) -> Tensor:
        answer_NC: Tensor = self.product(query_NE, gathered_CE.T)
        return answer_NC


class PixelMajorAttention(nn.Module):
    """The three stages of CTAL for one frame, per task (1, C, H, W) -> (1, C, H, W), for the tasks ``answered`` alone.

    Takes the place of a `nets.ctal.CrossTaskAttention`, as `attention.ExactAttention` does. Without ``kernels`` it is
    exact. With them, (F, 3, 3) per task, ``mixtures`` (N, F) per task say how each pixel mixes them. ``gamma`` is
    folded into the mixtures and the bias.
    """

    bias: Tensor

    def __init__(
        self,
        trained: CrossTaskAttention,
        answered: Sequence[str],
        kernels: Sequence[Tensor] | None = None,
        mixtures: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.tasks, self.answered = trained.tasks, tuple(answered)
        self.projection = nn.ModuleDict({task: trained.projection[task] for task in self.answered})
        mix_KT1HW, bias_N = fusion_maps(trained)
        H, W = trained.size
        tasks = range(len(self.tasks))
        if kernels is None:
            self.keys: nn.Module = Shifts()
            # Offset by offset, and within it task by task: the order of `Shifts`.
            maps = [(index, mix_T1HW[index]) for mix_T1HW in mix_KT1HW for index in tasks]
        else:
            self.keys = Filters(kernels, self.channels)
            maps = [(index, mix_N) for index in tasks for mix_N in mixtures[index].T]
        self._task_of_mix = tuple(index for index, _ in maps)
        self.mix = nn.ModuleList(Mix((trained.gamma * mix).reshape(1, 1, H, W).to(bias_N.dtype)) for _, mix in maps)
        self.gather = Gather(len(OFFSETS) if kernels is None else 1)
        self.spread = nn.ModuleDict({task: Spread() for task in self.answered})
        self.register_buffer("bias", (trained.gamma * bias_N).reshape(1, 1, H, W))
        self.keep = 1 - trained.gamma

    @property
    def channels(self) -> int:
        """Channels of a task."""
        return next(iter(self.projection.values())).in_channels

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inverses = [_inverse_length(feats[task]) for task in self.tasks]
        units = [feats[task] * inverse_11HW for task, inverse_11HW in zip(self.tasks, inverses, strict=True)]
        query_1EHW = torch.cat(
            [
                mix(feats[self.tasks[index]], inverses[index])
                for index, mix in zip(self._task_of_mix, self.mix, strict=True)
            ],
            dim=1,
        )
        values = {task: self.projection[task](feats[task]) for task in self.answered}
        value_NR = rows(torch.cat(list(values.values()), dim=1))
        gathered_RE = self.gather(value_NR, [rows(key) for key in self.keys(units)])
        query_NE = rows(query_1EHW)
        answers = {}
        for task, gathered_CE in zip(self.answered, gathered_RE.split(self.channels), strict=True):
            answer_NC = self.spread[task](query_NE, gathered_CE)
            value_sum_1C11 = values[task].sum((2, 3), keepdim=True)
            own_1CHW = self.keep * feats[task] + value_sum_1C11 * self.bias
            answers[task] = own_1CHW + as_map(answer_NC, own_1CHW)
        return answers


def rows(map_1CHW: Tensor) -> Tensor:
    """Return a map as a matrix with a row per pixel, (N, C)."""
    return map_1CHW.permute(0, 2, 3, 1).reshape(-1, map_1CHW.shape[1])


def as_map(pixel_NC: Tensor, like_1CHW: Tensor) -> Tensor:
    """Return a matrix with a row per pixel as a map of the shape of another."""
    _, C, H, W = like_1CHW.shape
    return pixel_NC.reshape(1, H, W, C).permute(0, 3, 1, 2)


def _inverse_length(feat_1CHW: Tensor) -> Tensor:
    """One over the length of each pixel's features, (1, 1, H, W); zero features stay zero when multiplied with it."""
    length_11HW = torch.linalg.vector_norm(feat_1CHW, dim=1, keepdim=True)
    inverse_11HW: Tensor = length_11HW.clamp_min(EPSILON).reciprocal()
    return inverse_11HW


def _depthwise(kernel_33: Tensor, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False, dtype=kernel_33.dtype)
    weight = kernel_33.expand(channels, 1, 3, 3).contiguous()
    conv.weight = nn.Parameter(weight, requires_grad=False)
    return conv
