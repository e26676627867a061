"""Each rewrite of a layer against what it replaces, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from emadeploy.export import rewrites

Off = Callable[[Tensor, Tensor], float]

EXACT = 1e-12


def unsettled_norm(channels: int, *, affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, affine=affine).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.3, 3)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(5, 7, 3, padding=1, bias=False),
        nn.Conv2d(5, 7, 1),
        nn.Conv2d(6, 4, 3, stride=2, groups=2),
        nn.ConvTranspose2d(5, 7, 2, stride=2),
        nn.ConvTranspose2d(5, 7, 2, stride=2, bias=False),
    ],
    ids=["3x3", "1x1 with bias", "grouped", "transposed", "transposed without bias"],
)
def test_folded_norm(off: Off, conv: nn.Conv2d, affine: bool) -> None:
    torch.manual_seed(0)
    conv, norm = conv.double(), unsettled_norm(conv.out_channels, affine=affine)
    feat = torch.randn(2, conv.in_channels, 6, 8, dtype=torch.float64)
    assert off(rewrites.folded(conv, norm)(feat), norm(conv(feat))) < EXACT


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        rewrites.folded(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))


@pytest.mark.parametrize("bias", [True, False])
def test_subpixel(off: Off, bias: bool) -> None:
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(5, 3, 2, stride=2, bias=bias).double()
    feat = torch.randn(1, 5, 4, 6, dtype=torch.float64)
    assert off(rewrites.Shuffle()(rewrites.subpixel(transposed)(feat)), transposed(feat)) < EXACT


@pytest.mark.parametrize(
    "conv",
    [
        nn.ConvTranspose2d(4, 4, 3, stride=2),
        nn.ConvTranspose2d(4, 4, 2, stride=2, padding=1),
        nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2),
    ],
    ids=["kernel", "padding", "groups"],
)
def test_other_transposed_convolutions_are_refused(conv: nn.ConvTranspose2d) -> None:
    with pytest.raises(ValueError, match="not a plain 2x2"):
        rewrites.subpixel(conv)


def test_upsampler(off: Off) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.ConvTranspose2d(5, 4, 2, stride=2), unsettled_norm(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    layers.double().eval()
    feat = torch.randn(1, 5, 4, 6, dtype=torch.float64)
    wanted = layers(feat)
    assert rewrites.fold_batch_norms(layers) == 1
    assert off(rewrites.shuffled(layers)(feat), wanted) < EXACT


def test_norms_are_found_by_place_and_by_name(off: Off) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 3, 1), unsettled_norm(3)
            self.downsample = nn.Sequential(nn.Conv2d(3, 3, 1), unsettled_norm(3))
            self.bn_alone = unsettled_norm(3)

        def forward(self, feat: Tensor) -> Tensor:
            return self.bn_alone(self.bn1(self.conv1(feat)) + self.downsample(feat))

    torch.manual_seed(0)
    block = Block().double().eval()
    feat = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    wanted = block(feat)
    assert rewrites.fold_batch_norms(block) == 2
    assert isinstance(block.bn_alone, nn.BatchNorm2d)
    assert off(block(feat), wanted) < EXACT
