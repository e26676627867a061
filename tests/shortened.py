"""Networks with shortened backbones and random weights that behave, for tests that trace them; frames that vary."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.preprocess import preprocess, resize_bilinear
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec

TASKS = ("semseg", "depth", "normals")
SIZE = (64, 96)


def structured(count: int, size: tuple[int, int], seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Return frames that differ and vary smoothly, as pictures do, with a little noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        coarse = rng.uniform(0, 255, (3, 4, 5)).astype(np.float32)
        noise = rng.normal(0, 4, (*size, 3))
        frames.append(np.clip(np.moveaxis(resize_bilinear(coarse, size), 0, 2) + noise, 0, 255).astype(np.uint8))
    return frames


def shortened(network: str = "emanet", tasks: tuple[str, ...] = TASKS, classes: int = 5) -> Any:
    """Return a network for images of 64 x 96 in eval mode, nothing left at its default; the same each time."""
    import torch

    from emadeploy import nets
    from emadeploy.nets.hrnet import HRNet

    chosen = tuple(TaskSpec(kind, classes if kind == "semseg" else 0) for kind in tasks)
    spec = ModelSpec("tiny", network, chosen, InputSpec(*SIZE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = nets.build(spec).eval()
        for module in made.modules():
            if isinstance(module, HRNet):
                shorten(module)
            elif isinstance(module, torch.nn.BatchNorm2d):
                # Random layers around zero amplify every rounding, as trained ones do not; away from zero they do less.
                module.weight.data.uniform_(0.4, 0.8)
                module.bias.data.uniform_(0.5, 1.5)
        images = [preprocess(frame, spec.input) for frame in structured(4, SIZE)]
        settle(made, torch.from_numpy(np.concatenate(images)))
    return made


def shorten(backbone: Any) -> None:
    """Keep one module of each stage and one block of each branch: tracing takes half of the time."""
    backbone.stage3, backbone.stage4 = backbone.stage3[:1], backbone.stage4[:1]
    for stage in (backbone.stage2, backbone.stage3, backbone.stage4):
        for part in stage:
            for index, branch in enumerate(part.branches):
                part.branches[index] = branch[:1]


def settle(network: Any, images: Any) -> None:
    """Give batch norms the statistics that training would: otherwise values grow out of proportion with depth."""
    import torch

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        network.deploy(images)
    network.eval()
