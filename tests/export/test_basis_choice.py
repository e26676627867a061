"""Choosing the kernels on a network: the errors that are reported are those of the maps really attended."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from emadeploy.contract.errors import CalibrationError, ExportError, FrameError
from emadeploy.contract.preprocess import preprocess
from emadeploy.export.basis import FULL_RANK, Kernels, decompose, fit, second_moments
from emadeploy.export.basis_choice import PartTally, choose, collect, smallest_ranks
from emadeploy.export.parity import structured_frame
from emadeploy.export.pixel_major import PixelMajorAttention
from emadeploy.nets.affinity import attend, attend_by_affinity, normalise
from emadeploy.nets.ctal import CHANNELS, CrossTaskAttention
from emadeploy.nets.network import Network

TASKS = ("semseg", "depth", "normals")
SIZE = (6, 8)
P = SIZE[0] * SIZE[1]
Images = list[np.ndarray]


def frames(network: Network, count: int) -> Images:
    spec = network.spec.input
    return [preprocess(structured_frame(spec.size, seed=seed), spec) for seed in range(count)]


@pytest.fixture(scope="module")
def attention() -> CrossTaskAttention:
    torch.manual_seed(0)
    module = CrossTaskAttention(TASKS, SIZE, gamma=0.3, form="exact", fusion_name="fusion").double()
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def feats() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {task: torch.randn(1, CHANNELS, *SIZE, dtype=torch.float64) for task in TASKS}


def unit_and_value(attention: CrossTaskAttention, feats: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    unit = normalise(torch.stack([feats[task] for task in TASKS], dim=1))
    return unit, torch.stack([attention.projection[task](feats[task]) for task in TASKS], dim=1)


def padded(basis: Kernels) -> tuple[Tensor, Tensor]:
    """Kernels and mixture of uneven ranks with zeros in place of those left out, as `attend` wants them."""
    kernels, mix = torch.zeros(3, 9, 3, 3, dtype=torch.float64), torch.zeros(P, 3, 9, dtype=torch.float64)
    for task, (own, how) in enumerate(zip(basis.kernels, basis.mixtures, strict=True)):
        kernels[task, : len(own)], mix[:, task, : len(own)] = own, how
    return kernels, mix


@pytest.mark.parametrize("ranks", [(1, 1, 1), (2, 5, 3), (9, 1, 4), (8, 8, 8), (9, 9, 9)])
def test_tallied_errors_are_those_of_attended_maps(attention, feats, ranks: tuple[int, ...]) -> None:
    unit, value = unit_and_value(attention, feats)
    weight, bias = attention.fusion_layer.weight, attention.fusion_layer.bias
    moments = second_moments(unit[0])
    wanted = attend_by_affinity(unit, value, weight, bias)[0]
    kernels, mix = padded(fit(weight, moments, ranks))
    found = attend(unit, value, mix, bias, kernels)[0]
    tally = PartTally(attention, decompose(weight, moments))
    tally.update(feats)
    errors = torch.linalg.vector_norm(found - wanted, dim=(1, 2, 3)) / torch.linalg.vector_norm(wanted, dim=(1, 2, 3))
    torch.testing.assert_close(tally.errors(ranks), errors, rtol=1e-9, atol=1e-12)


def test_the_deployed_layout_takes_uneven_ranks(attention, feats, off) -> None:
    unit, value = unit_and_value(attention, feats)
    basis = fit(attention.fusion_layer.weight, second_moments(unit[0]), (2, 5, 3))
    kernels, mix = padded(basis)
    attended = attend(unit, value, mix, attention.fusion_layer.bias, kernels)[0]
    found = PixelMajorAttention(attention, TASKS, basis.kernels, basis.mixtures)(feats)
    for task, attended_CHW in zip(TASKS, attended, strict=True):
        wanted = attention.gamma * attended_CHW + (1 - attention.gamma) * feats[task][0]
        assert off(found[task][0], wanted) < 1e-12


@pytest.mark.parametrize("bound", [0.5, 0.2, 0.05, 1e-6])
def test_ranks_are_the_smallest_under_the_bound(attention, feats, bound: float) -> None:
    unit, _ = unit_and_value(attention, feats)
    tally = PartTally(attention, decompose(attention.fusion_layer.weight, second_moments(unit[0])))
    tally.update(feats)
    ranks = smallest_ranks(tally, bound)
    assert bool((tally.errors(ranks) <= bound).all())
    for task, rank in enumerate(ranks):
        fewer = [*ranks[:task], rank - 1, *ranks[task + 1 :]]
        assert rank == 1 or not bool((tally.errors(fewer) <= bound).all())


def test_ranks_follow_the_data(attention, feats) -> None:
    # Constant features need one kernel where the map is all inside; noise needs all nine under a tight bound.
    mixed = {**feats, "depth": torch.ones(1, CHANNELS, *SIZE, dtype=torch.float64) + 1e-3 * feats["depth"]}
    unit, _ = unit_and_value(attention, mixed)
    tally = PartTally(attention, decompose(attention.fusion_layer.weight, second_moments(unit[0])))
    tally.update(mixed)
    ranks = smallest_ranks(tally, 0.01)
    assert ranks[1] < min(ranks[0], ranks[2])


@pytest.mark.parametrize("name", ["emanet", "m_emanet"])
def test_choose_on_a_network(make_network: Callable[..., Network], name: str) -> None:
    network = make_network(name, ("semseg", "depth"))
    network.train()
    images = frames(network, 6)
    counted: list[int] = []
    bases = choose(network, images, bound=0.02, progress=counted.append)
    assert network.training
    assert counted == [1, 2, 3, 4, 5, 6]
    assert list(bases) == list(network.attentions())
    for path, basis in bases.items():
        pixels = network.attentions()[path].size[0] * network.attentions()[path].size[1]
        assert all(error <= 0.02 for error in basis.errors.values())
        assert basis.ranks == dict(zip(("semseg", "depth"), map(len, basis.kernels), strict=True))
        assert [mix.shape for mix in basis.mixtures] == [(pixels, rank) for rank in basis.ranks.values()]
        facts = json.loads(json.dumps(basis.facts()))
        assert facts["ranks"] == basis.ranks
        assert facts["frames"] == {"statistics": 4, "held_aside": 2}
        assert len(facts["frames_sha256"]) == 64


def test_a_rank_of_ones_own(make_network: Callable[..., Network]) -> None:
    network = make_network("emanet", ("semseg", "depth"))
    images = frames(network, 3)
    errors = []
    for rank in (1, 4, FULL_RANK):
        (basis,) = choose(network, images, rank=rank).values()
        assert set(basis.ranks.values()) == {rank}
        assert basis.bound is None
        errors.append(basis.errors["depth"])
    assert errors[0] > errors[1] > errors[2] == 0


def test_moments_are_the_mean_over_frames(make_network: Callable[..., Network]) -> None:
    network = make_network("emanet", ("semseg", "depth"))
    images = frames(network, 2)
    (both,) = collect(network, images).values()
    alone = [next(iter(collect(network, [image]).values())) for image in images]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    assert not torch.allclose(alone[0], alone[1], rtol=1e-4, atol=0)


def test_the_digest_is_of_the_frames(make_network: Callable[..., Network]) -> None:
    network = make_network("emanet", ("semseg", "depth"))
    images = frames(network, 3)
    digests = {next(iter(choose(network, which, rank=1).values())).frames_sha256 for which in (images, images[::-1])}
    assert len(digests) == 2


def test_refusals(make_network: Callable[..., Network]) -> None:
    network = make_network("emanet", ("semseg", "depth"))
    images = frames(network, 2)
    choose(network, images, rank=1)  # the control
    with pytest.raises(CalibrationError, match=r"at least two calibration frames.*got 0"):
        choose(network, [])
    with pytest.raises(CalibrationError, match="got 1"):
        choose(network, images[:1])
    with pytest.raises(CalibrationError, match="got none"):
        collect(network, [])
    for rank in (0, 10):
        with pytest.raises(ExportError, match=f"rank {rank} is not from 1 to 9"):
            choose(network, images, rank=rank)
    for bound in (0.0, -1.0, 1.0, float("nan")):
        with pytest.raises(ExportError, match="bound"):
            choose(network, images, bound=bound)
    for unfit in ([images[0] * np.nan, images[1]], [images[0], images[1] * np.nan]):
        with pytest.raises(CalibrationError, match=r"spatial_att: .* not finite"):
            choose(network, [image.astype(np.float32) for image in unfit])
    with pytest.raises(FrameError):
        choose(network, [image[:, :, :16] for image in images])


def test_a_network_without_attention_is_refused(make_network: Callable[..., Network]) -> None:
    network = make_network("hps", ("semseg", "depth"))
    with pytest.raises(ExportError, match=r"hps.*has no CTAL"):
        choose(network, frames(network, 2))
