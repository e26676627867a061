"""The baselines of the multi-task gain: one network per task (`stl`), and one backbone for all tasks (`hps`).

Shape suffixes: B batch, H x W rows and columns of the image. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.blocks import Fuse, initialise
from emadeploy.nets.network import Backbone, Network, build_backbone


def _heads(spec: ModelSpec, backbone: Backbone) -> nn.ModuleDict:
    return nn.ModuleDict({task.name: Fuse(backbone.channels, outputs=task.channels) for task in spec.tasks})


class SingleTask(Network):
    """Single-task learning: every task has its own backbone and head; nothing is shared. Outputs: `<task>`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.backbones = nn.ModuleDict({task.name: build_backbone(spec) for task in spec.tasks})
        self.heads = _heads(spec, next(iter(self.backbones.values())))
        initialise(self)

    def predict(self, image_B3HW: Tensor, *, auxiliary: bool) -> dict[str, Tensor]:
        """Return raw maps at 1/4 of the image; there are no auxiliary ones."""
        return {task: head(self.backbones[task](image_B3HW)) for task, head in self.heads.items()}


class HardSharing(Network):
    """Hard parameter sharing, the multi-task baseline: one backbone, a head per task. Outputs: `<task>`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.backbone = build_backbone(spec)
        self.heads = _heads(spec, self.backbone)
        initialise(self)

    def predict(self, image_B3HW: Tensor, *, auxiliary: bool) -> dict[str, Tensor]:
        """Return raw maps at 1/4 of the image; there are no auxiliary ones."""
        pyramid = self.backbone(image_B3HW)
        return {task: head(pyramid) for task, head in self.heads.items()}
