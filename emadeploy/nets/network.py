"""What all networks share: the checked image size, the backbones, the two ways to run.

Shape suffixes: B batch, C channels, H x W rows and columns of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from emadeploy.contract.errors import FrameError
from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.blocks import Bottleneck, resize
from emadeploy.nets.ctal import CHANNELS as CTAL_CHANNELS
from emadeploy.nets.ctal import CrossTaskAttention
from emadeploy.nets.hrnet import HRNet
from emadeploy.nets.timm_backbone import PREFIX, TimmBackbone

MAP_STRIDE = 4
"""Pixels of the image per pixel of the finest map, where CTAL works as published."""

Backbone = HRNet | TimmBackbone
"""Image (B, 3, H, W) -> four maps at 1/4, 1/8, 1/16, 1/32, of ``channels`` channels."""


def build_backbone(spec: ModelSpec) -> Backbone:
    """Return the backbone that ``spec`` names, with random weights.

    Raises BackendMissing and SpecError as :class:`TimmBackbone` does.
    """
    if spec.backbone.startswith(PREFIX):
        return TimmBackbone(spec.backbone.removeprefix(PREFIX), spec.input.size)
    return HRNet()


def map_size(spec: ModelSpec) -> tuple[int, int]:
    """Return the rows and columns of the map that CTAL works on."""
    return spec.input.height // spec.ctal.stride, spec.input.width // spec.ctal.stride


def ctal_scale(spec: ModelSpec) -> int:
    """Return which of the backbone's maps has the size that CTAL works at: 0 for the finest, at 1/4 of the image."""
    return (spec.ctal.stride // MAP_STRIDE).bit_length() - 1


def task_head(outputs: int) -> nn.Sequential:
    """Return the head after CTAL, (B, 128, H, W) -> (B, outputs, H, W): two bottlenecks and a 1x1 convolution."""
    return nn.Sequential(
        Bottleneck(CTAL_CHANNELS, 32), Bottleneck(CTAL_CHANNELS, 32), nn.Conv2d(CTAL_CHANNELS, outputs, 1)
    )


class Network(nn.Module):
    """Base of the four networks. A network computes small maps; here they become float32 maps of the image's size.

    ``model(image_B3HW)`` returns every prediction, final and auxiliary; ``model.deploy(image_B3HW)`` the final ones
    alone, and spends nothing on the others.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    def hrnets(self) -> dict[str, HRNet]:
        """Return the HRNets by module name: one, or one per task in `stl`; none over a backbone of timm."""
        return {name: module for name, module in self.named_modules() if isinstance(module, HRNet)}

    def timm_backbones(self) -> dict[str, TimmBackbone]:
        """Return the backbones of timm by module name, as :meth:`hrnets` does."""
        return {name: module for name, module in self.named_modules() if isinstance(module, TimmBackbone)}

    def attentions(self) -> dict[str, CrossTaskAttention]:
        """Return CTAL's attention by module name: one in EMA-Net, none in the baselines."""
        return {name: module for name, module in self.named_modules() if isinstance(module, CrossTaskAttention)}

    def predict(self, image_B3HW: Tensor, *, auxiliary: bool) -> dict[str, Tensor]:
        """Return the raw maps at the network's own resolution, by output name; each network defines this."""
        raise NotImplementedError

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return raw maps (B, outputs, H, W), float32, by name: `<task>`, and `initial_<task>` or `scale_<s>_<task>`.

        Args:
            image_B3HW: RGB in [0, 1], of the size in the spec.

        Raises:
            FrameError: the image has another shape.
        """
        return self._at_image_size(self.predict(self._checked(image_B3HW), auxiliary=True))

    def deploy(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return the final maps alone, `<task>` -> (B, outputs, H, W), float32; see `forward`."""
        return self._at_image_size(self.predict(self._checked(image_B3HW), auxiliary=False))

    def _checked(self, image_B3HW: Tensor) -> Tensor:
        wanted = (3, *self.spec.input.size)
        if image_B3HW.dim() != 4 or tuple(image_B3HW.shape[1:]) != wanted:
            raise FrameError(
                f"model {self.spec.name!r} got an image of shape {tuple(image_B3HW.shape)}, "
                f"expected (batch, {', '.join(map(str, wanted))}): resize the image, or build the model for its size"
            )
        return image_B3HW

    def _at_image_size(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Under autocast the maps may be bfloat16: losses, metrics and the resize itself want float32.
        size = self.spec.input.size
        return {name: resize(map_BCHW.float(), size) for name, map_BCHW in maps.items()}
