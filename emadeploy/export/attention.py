"""CTAL in deployment form: the same function as the published module, exact, without a matrix of N x N affinities.

Shape suffixes: T tasks, S tasks that are answered (S <= T), C channels of a task, H x W rows and columns of the map,
N = H * W pixels, E = T * C rows of all tasks, R = S * C rows of those answered, K = 9 entries of a 3x3 kernel.
There is one frame and no axis for it.

As published, pixel i mixes the affinities of all tasks with its own T x 3 x 3 kernel w and attends with the mixture:

    M[i,y]   = b[i] + sum_t sum_d  w[i,t,d] * F_t[:,i] . F_t[:,y+d]                                     (N x N)
    O_s[:,i] = sum_y V_s[:,y] M[i,y]

There is no softmax, so the sum over the pixels y can be taken first. It leaves one small matrix per offset d:

    G_d    = sum_y V[:,y] F[:,y+d]^T                              `gather`, a product (R x N) (N x E) per offset
    O[:,i] = sum_d G_d (w_d * F)[:,i]  +  b[i] * sum_y V[:,y]     `spread`, a product (R x E) (E x N) per offset

Both are linear in N. The offsets are added up one after the other, so that one copy of the features exists at a time
and not nine; ONNX Runtime turns each `spread` and its addition into one product that accumulates in place. This is the
form for float32; low precision wants another layout of the same sums (`pixel_major`).

Source: the function is arXiv 2401.11124's, the rewrite this project's. Reference: `nets.affinity.attend_by_affinity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emadeploy.nets.affinity import EPSILON
from emadeploy.nets.ctal import CrossTaskAttention

OFFSETS = tuple((row, column) for row in range(3) for column in range(3))
"""Where the entries of a 3x3 kernel look, rows first: (0, 0) is up and to the left, (1, 1) the pixel itself."""


class Normalise(nn.Module):
    """Unit length over the channels of each pixel, zero staying zero: (T, C, H, W) -> the same shape."""

    def forward(self, feat_TCHW: Tensor) -> Tensor:
        length_T1HW = torch.linalg.vector_norm(feat_TCHW, dim=1, keepdim=True)
        inverse_T1HW: Tensor = length_T1HW.clamp_min(EPSILON).reciprocal()
        return feat_TCHW * inverse_T1HW


class Product(nn.Module):
    """A matrix product; a module only so that its node in the graph has a name."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right


class Spread(nn.Module):
    """One offset's share of every pixel: adds ``G_d (w_d * F)`` to the sum (R, N) so far. ``mix`` is w_d."""

    mix: Tensor

    def __init__(self, mix_T1HW: Tensor) -> None:
        super().__init__()
        self.register_buffer("mix", mix_T1HW)
        self.product = Product()

    def forward(self, total_RN: Tensor, gathered_RE: Tensor, unit_TCHW: Tensor) -> Tensor:
        share_RN: Tensor = self.product(gathered_RE, as_matrix(unit_TCHW * self.mix))
        return total_RN + share_RN


class ExactAttention(nn.Module):
    """The three stages of CTAL for one frame, per task (1, C, H, W) -> (1, C, H, W), for the tasks ``answered`` alone.

    Takes the place of a `nets.ctal.CrossTaskAttention`. Every task attends with the affinities of all tasks, so the
    features of all are needed, but values and results of those answered only. ``gather`` makes the sums over pixels
    (`tiles.TileGather`). ``gamma`` is folded into the fusion weights.
    """

    bias: Tensor

    def __init__(self, trained: CrossTaskAttention, answered: Sequence[str], gather: nn.Module) -> None:
        super().__init__()
        self.tasks, self.answered = trained.tasks, tuple(answered)
        self.projection = nn.ModuleDict({task: trained.projection[task] for task in self.answered})
        self.normalise = Normalise()
        mix_KT1HW, bias_N = fusion_maps(trained)
        self.gather = gather.to(bias_N.dtype)
        self.spread = nn.ModuleList(Spread(mix_T1HW) for mix_T1HW in trained.gamma * mix_KT1HW)
        self.register_buffer("bias", trained.gamma * bias_N)
        self.keep = 1 - trained.gamma

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        feat_TCHW = torch.cat([feats[task] for task in self.tasks])
        own_SCHW = torch.cat([feats[task] for task in self.answered]) if self.answered != self.tasks else feat_TCHW
        value_SCHW = torch.cat([self.projection[task](feats[task]) for task in self.answered])
        unit_TCHW = self.normalise(feat_TCHW)
        value_sum_R1 = as_matrix(value_SCHW).sum(1, keepdim=True)
        total_RN = as_matrix(self.keep * own_SCHW) + value_sum_R1 * self.bias
        for spread, gathered_RE in zip(self.spread, self.gather(value_SCHW, unit_TCHW), strict=True):
            total_RN = spread(total_RN, gathered_RE, unit_TCHW)
        return dict(zip(self.answered, torch.split(total_RN.reshape(own_SCHW.shape), 1), strict=True))


def as_matrix(maps_SCHW: Tensor) -> Tensor:
    """Return maps (S, C, H, W) as a matrix with a row per map and a column per pixel, (S * C, H * W)."""
    S, C, H, W = maps_SCHW.shape
    return maps_SCHW.reshape(S * C, H * W)


def fusion_maps(trained: CrossTaskAttention) -> tuple[Tensor, Tensor]:
    """Return the fusion kernels as maps over the pixels, (K, T, 1, H, W), and the bias (N,), both detached."""
    weight_NTK = trained.fusion_layer.weight.detach().flatten(2)
    T, K = weight_NTK.shape[1:]
    mix_KT1HW = weight_NTK.permute(2, 1, 0).reshape(K, T, 1, *trained.size)
    bias_N = trained.fusion_layer.bias
    assert bias_N is not None
    return mix_KT1HW, bias_N.detach()
