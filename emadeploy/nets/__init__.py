"""The networks in PyTorch: EMA-Net, single and multi scale, and the baselines. Needs the `train` extra.

model = nets.build(spec)                    # random weights
model.eval()(image_B3HW)                    # {"semseg": (B, 13, H, W), ...}
"""

from __future__ import annotations

from emadeploy.nets.build import build

__all__ = ["build"]
