"""Few kernels for many: the fusion kernels of CTAL in a basis that suits the affinities really seen.

Shape suffixes: T tasks, C channels of a task, H x W rows and columns of the map, P = H * W pixels, R kernels that a
task keeps, 9 the entries of a 3x3 kernel or the nine kernels of a full basis.

The fusion kernel of pixel i for task t is written as ``w[i,t,:] ~ sum_r mix[i,t,r] * kernels[t,r,:]``; then CTAL costs
R / 9 of its exact form (`nets.affinity.attend`). Affinities of neighbouring pixels are nearly equal, so that most of
what distinguishes the kernels never meets data. What counts is the error of the mixed affinities w^T a, where ``a`` are
the nine shifted affinities of a pair of pixels:

    E[(dw^T a)^2] = dw^T S dw,   S = E[a a^T]   (9 x 9, over all pairs of pixels)

With L L^T = S that is the plain squared length of L^T dw, so the best R kernels are those of the singular value
decomposition of w L, multiplied back by L^-1 (Eckart and Young), and each row of the mixture is the least-squares
fit of that pixel's kernel under S. What a rank leaves out is known from the singular values alone.

The derivation is this project's. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emadeploy.contract.errors import CalibrationError, ExportError
from emadeploy.nets.affinity import neighbours

FULL_RANK = 9
"""Kernels of a full basis, which is the exact form."""

RELATIVE_FLOOR = 1e-10
"""Smallest eigenvalue of S, relative to its largest. Features that vary little (constant ones, in the extreme) make S
singular to rounding: some differences of affinities never occur. Raising those eigenvalues keeps L^-1 finite, and
costs an error of 1e-5 of the affinities at the most."""

_CHANNELS_AT_ONCE = 16


def second_moments(unit_TCHW: Tensor) -> Tensor:
    """Return S of one frame, (T, 9, 9) float64: E[a a^T] over all P x P pairs of pixels, without any P x P matrix.

    With A = sum_i F_i F_i^T (C x C), the sum over both pixels is ``sum_y (A F_{y+d}) . F_{y+d'}``, F being zero outside
    the map: linear in P. Entries of ``a`` run over rows, then columns, as those of a 3x3 kernel.
    """
    moments = []
    for unit_CHW in unit_TCHW.double():
        unit_CP = unit_CHW.flatten(1)
        weighted_CHW = ((unit_CP @ unit_CP.T) @ unit_CP).reshape(unit_CHW.shape)
        moment_99 = unit_CP.new_zeros(FULL_RANK, FULL_RANK)
        # The nine copies exist for a few channels at a time.
        slices = zip(weighted_CHW.split(_CHANNELS_AT_ONCE), unit_CHW.split(_CHANNELS_AT_ONCE), strict=True)
        for weighted, unit in slices:
            moment_99 += _nine_rows(weighted) @ _nine_rows(unit).T
        moments.append((moment_99 + moment_99.T) / (2 * unit_CP.shape[1] ** 2))
    return torch.stack(moments)


@dataclass(frozen=True, eq=False)
class Kernels:
    """A basis per task: ``kernels`` (R, 3, 3) and ``mixtures`` (P, R), R differing between tasks.

    ``expected``: the relative error of each task's mixed affinities, root mean square under S.
    """

    kernels: tuple[Tensor, ...]
    mixtures: tuple[Tensor, ...]
    expected: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """All nine kernels of every task, (T, 9, 3, 3), the most energetic first, and how each pixel mixes them, (P, T, 9).

    A basis of R kernels is the first R of them, with the same mixture. Scales are split so that integers hold both
    sides: entries of a kernel sum up to 1 in magnitude, so that features of unit length stay within [-1, 1] when
    filtered, and the mixture has the rest. A kernel's entry of largest magnitude is positive.

    ``expected[t, r - 1]`` is the relative error of the mixed affinities of task t with r kernels (0 for nine).
    ``weight`` (P, T, 3, 3) is what was decomposed. All in float64 but the weight, which is as it was given.
    """

    weight: Tensor
    kernels: Tensor
    mix: Tensor
    expected: Tensor

    def keep(self, ranks: Sequence[int]) -> Kernels:
        """Return the basis of ``ranks`` kernels per task, in the type of the weights.

        With nine kernels a task keeps its own fusion kernels and one-hot basis kernels: the exact form, not its
        rounding. Raises ExportError for a number of ranks other than T, or a rank outside 1 to 9.
        """
        check_ranks(ranks, self.kernels.shape[0])
        kernels, mixtures, expected = [], [], []
        for task, rank in enumerate(ranks):
            kernels_R33, mix_PR = self.kernels[task, :rank], self.mix[:, task, :rank]
            if rank == FULL_RANK:
                kernels_R33 = torch.eye(FULL_RANK, device=kernels_R33.device).reshape(FULL_RANK, 3, 3)
                mix_PR = self.weight[:, task].flatten(1)
            kernels.append(kernels_R33.to(self.weight.dtype))
            mixtures.append(mix_PR.to(self.weight.dtype))
            expected.append(float(self.expected[task, rank - 1]))
        return Kernels(tuple(kernels), tuple(mixtures), tuple(expected))


def decompose(weight_PT33: Tensor, moments_T99: Tensor, where: Sequence[str] = ()) -> Decomposition:
    """Return the kernels in which ``weight_PT33`` is cheapest to approximate under ``moments_T99`` (`second_moments`).

    The identity for each task's moments gives the plain singular value decomposition, blind to data. ``where`` names
    the tasks in errors.

    Raises CalibrationError where moments are not finite, or zero: features that never fired say nothing.
    """
    parts = [
        _decompose_task(weight_P9, moments_T99[index].double(), where[index] if where else f"task {index}")
        for index, weight_P9 in enumerate(weight_PT33.flatten(2).double().unbind(1))
    ]
    kernels, mixtures, expected = zip(*parts, strict=True)
    return Decomposition(weight_PT33, torch.stack(kernels), torch.stack(mixtures, dim=1), torch.stack(expected))


def fit(weight_PT33: Tensor, moments_T99: Tensor, ranks: Sequence[int]) -> Kernels:
    """Return the best basis of ``ranks`` kernels per task; raises as `decompose` and `Decomposition.keep`."""
    check_ranks(ranks, weight_PT33.shape[1])
    return decompose(weight_PT33, moments_T99).keep(ranks)


def check_ranks(ranks: Sequence[int], tasks: int) -> None:
    """Raise ExportError unless ``ranks`` holds one number from 1 to 9 per task."""
    if len(ranks) != tasks:
        raise ExportError(f"kernel basis: {len(ranks)} ranks for {tasks} tasks; give one per task")
    for rank in ranks:
        if not 1 <= rank <= FULL_RANK:
            raise ExportError(
                f"kernel basis: rank {rank} is not from 1 to {FULL_RANK}; fewer kernels are faster, "
                f"{FULL_RANK} are the exact form"
            )


def _decompose_task(weight_P9: Tensor, moment_99: Tensor, where: str) -> tuple[Tensor, Tensor, Tensor]:
    root_99, inverse_99 = _root(moment_99, where)
    left_P9, sizes_9, right_99 = _svd(weight_P9 @ root_99)
    kernels_99 = right_99 @ inverse_99
    largest_91 = kernels_99.gather(1, kernels_99.abs().argmax(1, keepdim=True))
    scale_91 = kernels_99.abs().sum(1, keepdim=True) * largest_91.sign()
    mix_P9 = left_P9 * sizes_9 * scale_91.T
    # What the first r leave out: the tail of the energies, summed from its small end.
    energy_9 = sizes_9.square().flip(0).cumsum(0).flip(0)
    left_out_9 = torch.cat([energy_9[1:], energy_9.new_zeros(1)])
    expected_9 = (left_out_9 / energy_9[0].clamp_min(torch.finfo(energy_9.dtype).tiny)).sqrt()
    return (kernels_99 / scale_91).reshape(FULL_RANK, 3, 3), mix_P9, expected_9


def _root(moment_99: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Return L with L L^T = S, and L^-1; by eigenvalues, as Cholesky's factor does not exist where S is singular."""
    if not moment_99.isfinite().all():
        raise CalibrationError(f"kernel basis, {where}: affinities of the calibration frames are not finite")
    values_9, vectors_99 = torch.linalg.eigh(moment_99)
    if not values_9[-1] > 0:
        raise CalibrationError(
            f"kernel basis, {where}: its features are zero on every calibration frame; check the frames and the weights"
        )
    lengths_9 = values_9.clamp_min(RELATIVE_FLOOR * float(values_9[-1])).sqrt()
    return vectors_99 * lengths_9, (vectors_99 / lengths_9).T


def _svd(matrix_P9: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (P, 9), sizes (9,) and V^T (9, 9), also where the map has fewer than nine pixels."""
    P = matrix_P9.shape[0]
    if P < FULL_RANK:
        matrix_P9 = torch.cat([matrix_P9, matrix_P9.new_zeros(FULL_RANK - P, FULL_RANK)])
    left, sizes, right = torch.linalg.svd(matrix_P9, full_matrices=False)
    return left[:P], sizes, right


def _nine_rows(feat_CHW: Tensor) -> Tensor:
    """Return the nine shifted copies of some channels as rows, (9, C * P)."""
    return neighbours(feat_CHW[None, None])[0, 0].flatten(1)
