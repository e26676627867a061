"""EMA-Net, single scale (`emanet`): one feature map, initial predictions, CTAL, heads.

Shape suffixes: B batch, C channels, H x W rows and columns (of the image, or of the map at 1/4 of it).

Source: arXiv 2401.11124. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.blocks import Bottleneck, Fuse, initialise
from emadeploy.nets.ctal import CTAL
from emadeploy.nets.network import Network, build_backbone, ctal_scale, map_size, task_head

_INITIAL_PLANES = 64
_INITIAL = _INITIAL_PLANES * Bottleneck.expansion


class InitialHeads(nn.Module):
    """Per task two bottlenecks, (B, inputs, H, W) -> (B, 256, H, W), and a prediction made from them.

    The features go on to CTAL; the predictions serve deep supervision only.
    """

    def __init__(self, spec: ModelSpec, inputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                task.name: nn.Sequential(Bottleneck(inputs, _INITIAL_PLANES), Bottleneck(_INITIAL, _INITIAL_PLANES))
                for task in spec.tasks
            }
        )
        self.conv_out = nn.ModuleDict({task.name: nn.Conv2d(_INITIAL, task.channels, 1) for task in spec.tasks})

    def forward(self, feat_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the features per task, (B, 256, H, W)."""
        return {task: layers(feat_BCHW) for task, layers in self.layers.items()}


class EmaNet(Network):
    """EMA-Net with one scale. Outputs: `<task>` and `initial_<task>`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        backbone = build_backbone(spec)
        self.backbone = nn.Sequential(backbone, Fuse(backbone.channels, scale=ctal_scale(spec)))
        self.initial_task_prediction_heads = InitialHeads(spec, sum(backbone.channels))
        self.affinity_learning_module = CTAL(
            spec.task_names, _INITIAL, map_size(spec), gamma=spec.ctal.gamma, form=spec.ctal.form, fusion_name="fusion"
        )
        self.heads = nn.ModuleDict({task.name: task_head(task.channels) for task in spec.tasks})
        initialise(self)

    def predict(self, image_B3HW: Tensor, *, auxiliary: bool) -> dict[str, Tensor]:
        """Return raw maps: initial ones of CTAL's size, by default 1/4 of the image, and finals twice as large."""
        feats = self.initial_task_prediction_heads(self.backbone(image_B3HW))
        distilled = self.affinity_learning_module(feats)
        maps = {task: head(distilled[task]) for task, head in self.heads.items()}
        if auxiliary:
            initial = self.initial_task_prediction_heads.conv_out
            maps |= {f"initial_{task}": conv(feats[task]) for task, conv in initial.items()}
        return maps
