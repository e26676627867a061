"""The kernel basis: its statistics against brute force, its optimality, and what it refuses; in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from emadeploy.contract.errors import CalibrationError, ExportError
from emadeploy.export.basis import FULL_RANK, decompose, fit, second_moments
from emadeploy.nets.affinity import attend, attend_by_affinity, normalise

T, C, SIZE = 2, 5, (6, 7)
P = SIZE[0] * SIZE[1]


def features(size: tuple[int, int] = SIZE, smooth: bool = False) -> Tensor:
    """Features of unit length, (T, C, H, W); smooth ones vary over the whole map, as a network's do."""
    coarse = torch.randn(1, T * C, 3, 3, dtype=torch.float64)
    made = functional.interpolate(coarse, size, mode="bicubic", align_corners=True) if smooth else None
    feat = made if made is not None else torch.randn(1, T * C, *size, dtype=torch.float64)
    return normalise(feat.reshape(1, T, C, *size))[0]


def affinities(unit_TCHW: Tensor) -> Tensor:
    """The nine shifted affinities of every pair of pixels, (T, P * P, 9), by the matrices that are to be avoided."""
    tasks, _, H, W = unit_TCHW.shape
    unit_TCP = unit_TCHW.flatten(2)
    affinity = (unit_TCP.transpose(1, 2) @ unit_TCP).reshape(tasks * H * W, 1, H, W)
    shifted = functional.unfold(affinity, 3, padding=1)
    return shifted.reshape(tasks, H * W, 9, H * W).transpose(2, 3).reshape(tasks, -1, 9)


def affinity_error(weight_P9: Tensor, found_P9: Tensor, moment_99: Tensor) -> float:
    """The relative error of mixed affinities, root mean square under S."""
    off = weight_P9 - found_P9
    energies = [torch.einsum("pd,de,pe->", rows, moment_99, rows) for rows in (off, weight_P9)]
    return float((energies[0].clamp_min(0) / energies[1]).sqrt())


def rebuilt(kernels_R33: Tensor, mix_PR: Tensor) -> Tensor:
    return mix_PR @ kernels_R33.flatten(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [SIZE, (1, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize("channels", [C, 40])
def test_second_moments_are_those_of_all_pairs(size: tuple[int, int], channels: int) -> None:
    unit = normalise(torch.randn(1, T, channels, *size, dtype=torch.float64))[0]
    pairs = affinities(unit)
    wanted = pairs.transpose(1, 2) @ pairs / pairs.shape[1]
    torch.testing.assert_close(second_moments(unit), wanted, rtol=1e-12, atol=1e-14)


def test_the_error_is_that_of_the_mixed_affinities() -> None:
    # S stands for all pairs of pixels: with one kernel for all, it gives the error of M itself.
    unit, weight_9, other_9 = features(), torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    pairs = affinities(unit)[0]
    wanted = float(torch.linalg.norm(pairs @ (weight_9 - other_9)) / torch.linalg.norm(pairs @ weight_9))
    assert affinity_error(weight_9[None], other_9[None], second_moments(unit)[0]) == pytest.approx(wanted, rel=1e-12)


def test_full_rank_is_the_exact_form(off) -> None:
    unit, weight, bias = features(), torch.randn(P, T, 3, 3, dtype=torch.float64), torch.randn(P, dtype=torch.float64)
    value = torch.randn(1, T, C, *SIZE, dtype=torch.float64)
    basis = fit(weight, second_moments(unit), [FULL_RANK] * T)
    mix = torch.stack(basis.mixtures, dim=1)
    found = attend(unit[None], value, mix, bias, torch.stack(basis.kernels))
    assert off(found, attend_by_affinity(unit[None], value, weight, bias)) < 1e-12
    assert basis.expected == (0, 0)


def test_the_full_decomposition_is_the_weights(off) -> None:
    weight = torch.randn(P, T, 3, 3, dtype=torch.float64)
    full = decompose(weight, second_moments(features(smooth=True)))
    assert off(torch.einsum("ptr,trij->ptij", full.mix, full.kernels), weight) < 1e-9


@given(rank=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_no_other_basis_is_better(rank: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight, moments = torch.randn(P, T, 3, 3, dtype=torch.float64), second_moments(features(smooth=True))
    basis = fit(weight, moments, [rank] * T)
    for task in range(T):
        weight_P9, moment_99 = weight[:, task].flatten(1), moments[task]
        best = affinity_error(weight_P9, rebuilt(basis.kernels[task], basis.mixtures[task]), moment_99)
        assert best == pytest.approx(basis.expected[task], rel=1e-3, abs=1e-6)
        # Competitors of the same rank, each with the mixture that suits it best: far ones, and near ones.
        for size in (10.0, 0.1, 1e-3):
            other_R9 = basis.kernels[task].flatten(1) + size * torch.randn(rank, 9, dtype=torch.float64)
            mix_PR = weight_P9 @ moment_99 @ other_R9.T @ torch.linalg.pinv(other_R9 @ moment_99 @ other_R9.T)
            assert affinity_error(weight_P9, mix_PR @ other_R9, moment_99) >= best * (1 - 1e-6)


def test_mixtures_are_least_squares_per_pixel() -> None:
    weight, moments = torch.randn(P, T, 3, 3, dtype=torch.float64), second_moments(features())
    basis = fit(weight, moments, [2, 3])
    for task in range(T):
        root = torch.linalg.cholesky(moments[task])
        seen, target = root.T @ basis.kernels[task].flatten(1).T, root.T @ weight[:, task].flatten(1).T
        torch.testing.assert_close(basis.mixtures[task].T, torch.linalg.lstsq(seen, target).solution)


def test_more_kernels_err_less_and_ranks_may_differ() -> None:
    weight, moments = torch.randn(P, T, 3, 3, dtype=torch.float64), second_moments(features())
    full = decompose(weight, moments)
    assert bool((full.expected.diff(dim=1) < 0).all())
    assert full.expected[:, -1].tolist() == [0, 0]
    uneven = full.keep([2, 5])
    assert [kernels.shape for kernels in uneven.kernels] == [(2, 3, 3), (5, 3, 3)]
    assert [mix.shape for mix in uneven.mixtures] == [(P, 2), (P, 5)]


def test_data_beats_the_plain_decomposition(off) -> None:
    unit = features((12, 14), smooth=True)
    pixels = 12 * 14
    weight, bias = torch.randn(pixels, T, 3, 3, dtype=torch.float64), torch.zeros(pixels, dtype=torch.float64)
    value = torch.randn(1, T, C, 12, 14, dtype=torch.float64)
    wanted = attend_by_affinity(unit[None], value, weight, bias)
    errors = []
    for moments in (second_moments(unit), torch.eye(9, dtype=torch.float64).expand(T, 9, 9)):
        basis = fit(weight, moments, [3] * T)
        mix = torch.stack(basis.mixtures, dim=1)
        errors.append(off(attend(unit[None], value, mix, bias, torch.stack(basis.kernels)), wanted))
    assert errors[0] < 0.25 * errors[1]


def test_kernels_are_normalised_and_ordered() -> None:
    weight, moments = torch.randn(P, T, 3, 3, dtype=torch.float64), second_moments(features())
    full = decompose(weight, moments)
    kernels_T99 = full.kernels.flatten(2)
    torch.testing.assert_close(kernels_T99.abs().sum(2), torch.ones(T, 9, dtype=torch.float64))
    largest = kernels_T99.gather(2, kernels_T99.abs().argmax(2, keepdim=True))
    assert bool((largest > 0).all())
    seen = torch.einsum("trd,tde,tre->tr", kernels_T99, moments, kernels_T99)
    energies = full.mix.square().sum(0) * seen
    assert bool((energies.diff(dim=1) < 0).all())
    # The sign of the weights goes into the mixture: the kernels stay.
    torch.testing.assert_close(decompose(-weight, moments).kernels, full.kernels)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1)])
def test_singular_moments_are_no_pole(size: tuple[int, int]) -> None:
    unit = normalise(torch.ones(1, T, C, *size, dtype=torch.float64))[0]
    moments = second_moments(unit)
    rank = int(torch.linalg.matrix_rank(moments[0]))
    assert rank < FULL_RANK
    weight = torch.randn(size[0] * size[1], T, 3, 3, dtype=torch.float64)
    full = decompose(weight, moments)
    assert bool(full.kernels.isfinite().all())
    assert bool(full.mix.isfinite().all())
    basis = full.keep([rank] * T)
    for task in range(T):
        found = rebuilt(basis.kernels[task], basis.mixtures[task])
        assert affinity_error(weight[:, task].flatten(1), found, moments[task]) < 1e-4


def test_weights_of_zero_need_no_kernel() -> None:
    basis = fit(torch.zeros(P, T, 3, 3), second_moments(features()), [1, 1])
    assert basis.expected == (0, 0)
    assert all(bool((mix == 0).all()) for mix in basis.mixtures)


def test_the_type_of_the_weights_is_kept() -> None:
    basis = fit(torch.randn(P, T, 3, 3), second_moments(features()), [1, FULL_RANK])
    assert {tensor.dtype for tensor in (*basis.kernels, *basis.mixtures)} == {torch.float32}


@pytest.mark.parametrize(
    ("ranks", "message"),
    [([0, 1], "rank 0 is not from 1 to 9"), ([1, 10], "rank 10 is not from 1 to 9"), ([1], "1 ranks for 2 tasks")],
)
def test_ranks_are_checked(ranks: list[int], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        fit(torch.randn(P, T, 3, 3), second_moments(features()), ranks)


@pytest.mark.parametrize(("filler", "message"), [(0.0, "zero on every"), (float("nan"), "not finite")])
def test_moments_without_meaning_are_refused(filler: float, message: str) -> None:
    moments = second_moments(features())
    moments[1] = filler
    with pytest.raises(CalibrationError, match=f"task 1: .*{message}"):
        decompose(torch.randn(P, T, 3, 3), moments)
