"""The networks in PyTorch: EMA-Net, single and multi scale, and the baselines. Needs the `train` extra.

model = nets.build(spec)                    # random weights
model = nets.load("runs/NAME/best")         # from a checkpoint; size=(96, 128) for another image size
model.eval()(image_B3HW)                    # {"semseg": (B, 13, H, W), "initial_semseg": ...}
model.deploy(image_B3HW)                    # the final maps alone
nets.save_checkpoint("runs/NAME/best", model, spec, step=100, metrics={...})
"""

from __future__ import annotations

from emadeploy.nets.build import build
from emadeploy.nets.checkpoint import Checkpoint, load, read_checkpoint, save_checkpoint
from emadeploy.nets.network import Network
from emadeploy.nets.published import import_published, load_backbone
from emadeploy.nets.resize import resize_fusion, resize_state_dict

__all__ = [
    "Checkpoint",
    "Network",
    "build",
    "import_published",
    "load",
    "load_backbone",
    "read_checkpoint",
    "resize_fusion",
    "resize_state_dict",
    "save_checkpoint",
]
