"""CTAL in deployment form against the published form, in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emadeploy.export import tiles
from emadeploy.export.attention import OFFSETS, ExactAttention, as_matrix
from emadeploy.export.pixel_major import PixelMajorAttention
from emadeploy.export.tiles import TileGather
from emadeploy.nets.ctal import CHANNELS, CrossTaskAttention

Off = Callable[[Tensor, Tensor], float]

TASKS = ("semseg", "depth", "normals")
SIZE = (8, 12)


class ShiftGather(nn.Module):
    """The gather as it is defined, one offset after the other: what `TileGather` must compute."""

    def forward(self, value_SCHW: Tensor, unit_TCHW: Tensor) -> list[Tensor]:
        H, W = unit_TCHW.shape[-2:]
        padded = torch.nn.functional.pad(unit_TCHW, (1, 1, 1, 1))
        shifted = [padded[:, :, row : row + H, column : column + W] for row, column in OFFSETS]
        return [as_matrix(value_SCHW) @ as_matrix(unit).T for unit in shifted]


Attention = Callable[[CrossTaskAttention, tuple[str, ...]], nn.Module]

ATTENTIONS: dict[str, Attention] = {
    "shifts": lambda trained, answered: ExactAttention(trained, answered, ShiftGather()),
    "tiles": lambda trained, answered: ExactAttention(trained, answered, TileGather(SIZE)),
    "pixel-major": PixelMajorAttention,
    "every kernel on its own basis": lambda trained, answered: PixelMajorAttention(
        trained, answered, [one_hot_kernels()] * len(TASKS), own_mixtures(trained)
    ),
}


def one_hot_kernels() -> Tensor:
    return torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)


def own_mixtures(trained: CrossTaskAttention) -> list[Tensor]:
    return list(trained.fusion_layer.weight.detach().flatten(2).unbind(1))


@pytest.fixture(scope="module")
def published() -> CrossTaskAttention:
    torch.manual_seed(0)
    module = CrossTaskAttention(TASKS, SIZE, gamma=0.3, form="affinity", fusion_name="fusion")
    return module.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def feats() -> dict[str, Tensor]:
    torch.manual_seed(1)
    made = {task: torch.randn(1, CHANNELS, *SIZE, dtype=torch.float64) for task in TASKS}
    made["depth"][:, :, 2, 3] = 0  # a pixel without length
    return made


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
@pytest.mark.parametrize("answered", [TASKS, ("depth",), ("semseg", "normals")], ids=["all", "one", "two"])
def test_exact_attention(
    off: Off, published: CrossTaskAttention, feats: dict[str, Tensor], attention: Attention, answered: tuple[str, ...]
) -> None:
    wanted = published(feats)
    found = attention(published, answered)(feats)
    assert tuple(found) == answered
    for task in answered:
        assert off(found[task], wanted[task]) < 1e-12


def test_the_published_form_and_the_attention_matter(
    off: Off, published: CrossTaskAttention, feats: dict[str, Tensor]
) -> None:
    # The control: without the affinities, or with one kernel moved, the comparison above must fail.
    wanted = published(feats)
    moved = ExactAttention(published, TASKS, ShiftGather())
    moved.spread[0].mix, moved.spread[8].mix = moved.spread[8].mix, moved.spread[0].mix
    assert all(off(moved(feats)[task], wanted[task]) > 1e-3 for task in TASKS)
    assert all(off(0.7 * feats[task], wanted[task]) > 1e-3 for task in TASKS)


def test_fewer_kernels_than_nine_are_an_approximation(
    off: Off, published: CrossTaskAttention, feats: dict[str, Tensor]
) -> None:
    # What the basis drops is really dropped: with eight of nine one-hot kernels the result is another.
    kernels = [one_hot_kernels()[:8], *[one_hot_kernels()] * 2]
    semseg, *others = own_mixtures(published)
    found = PixelMajorAttention(published, TASKS, kernels, [semseg[:, :8], *others])(feats)
    assert all(off(found[task], published(feats)[task]) > 1e-3 for task in TASKS)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (16, 4)])
def test_tiles_gather_what_shifts_gather(off: Off, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    value, unit = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(4, 3, *size, dtype=torch.float64)
    wanted = torch.stack(ShiftGather()(value, unit))
    assert wanted.shape == (9, 6, 12)
    assert off(torch.stack(TileGather(size)(value, unit)), wanted) < 1e-12


def test_shifts_gather_what_the_definition_says() -> None:
    torch.manual_seed(0)
    value, unit = torch.randn(1, 1, 3, 4, dtype=torch.float64), torch.randn(1, 1, 3, 4, dtype=torch.float64)
    for index, gathered in enumerate(ShiftGather()(value, unit)):
        row, column = index // 3 - 1, index % 3 - 1
        wanted = sum(
            float(value[0, 0, y, x] * unit[0, 0, y + row, x + column])
            for y in range(3)
            for x in range(4)
            if 0 <= y + row < 3 and 0 <= x + column < 4
        )
        assert float(gathered) == pytest.approx(wanted)


def test_tiles_cost_float32_little_precision(off: Off) -> None:
    torch.manual_seed(0)
    size = (36, 48)
    value, unit = torch.randn(1, 32, *size), torch.nn.functional.normalize(torch.randn(1, 32, *size), dim=1)
    wanted = torch.stack(ShiftGather()(value.double(), unit.double()))
    shifted = off(torch.stack(ShiftGather()(value, unit)).double(), wanted)
    tiled = off(torch.stack(TileGather(size).float()(value, unit)).double(), wanted)
    assert shifted < tiled < 5e-6


def test_six_products_make_three_sums() -> None:
    random = np.random.default_rng(0)
    value, feature = random.normal(size=tiles.TILE), random.normal(size=tiles.POINTS)
    around = np.linalg.inv(tiles.evaluation(tiles.POINTS)).T
    sums = tiles.evaluation(tiles.TAPS).T @ ((tiles.evaluation(tiles.TILE) @ value) * (around @ feature))
    np.testing.assert_allclose(sums, np.correlate(feature, value, "valid"), rtol=1e-12)
