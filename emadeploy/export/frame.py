"""The host's work inside the graph: a camera frame goes in, decoded maps come out, at the frame's size.

Shape suffixes: C channels, h x w the network's image or raw map, H x W the frame.

The same arithmetic as `contract.preprocess` and `contract.outputs`, which define it; tests compare the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emadeploy.contract.spec import InputSpec, TaskSpec

_TINY = 1e-12


class FrameToImage(nn.Module):
    """uint8 frame (H, W, 3) RGB -> the network's input (1, 3, h, w), float32: resized, scaled and normalised."""

    scale: Tensor
    shift: Tensor | None

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.size = spec.size
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        # (x / 255 - mean) / std, as one product and one sum.
        self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(3, 1, 1) if any(spec.mean) else None)

    def forward(self, frame_HW3: Tensor) -> Tensor:
        # Moving the channels first costs least while they are bytes.
        image_13HW = frame_HW3.permute(2, 0, 1).unsqueeze(0).float()
        scaled = resize(image_13HW, self.size) * self.scale
        return scaled if self.shift is None else scaled + self.shift


class Decode(nn.Module):
    """The raw map (1, C, h, w) of a task -> its decoded map at the frame's size, as in `contract.outputs.decode`."""

    def __init__(self, task: TaskSpec, frame_size: tuple[int, int]) -> None:
        super().__init__()
        self.task, self.frame_size = task, frame_size

    def forward(self, raw_1Chw: Tensor) -> Tensor:
        map_CHW = resize(raw_1Chw, self.frame_size).squeeze(0)
        match self.task.kind:
            case "semseg" | "human_parts":
                return map_CHW.argmax(0).to(torch.uint8)
            case "depth":
                return map_CHW[0].relu()
            case "normals":
                length_HW: Tensor = torch.linalg.vector_norm(map_CHW, dim=0).clamp_min(_TINY)
                return (map_CHW / length_HW).permute(1, 2, 0)
            case "edge":
                return map_CHW[0].sigmoid()
            case _:  # saliency: the softmax of two
                return (map_CHW[1] - map_CHW[0]).sigmoid()


class Resize(nn.Module):
    """Bilinear resizing to a fixed size; a module so that its node in the graph has a name."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, map_1Chw: Tensor) -> Tensor:
        return resize(map_1Chw, self.size)


def resize(map_1Chw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, half-pixel centres, clamped at the border; a map of that size passes through."""
    if tuple(map_1Chw.shape[-2:]) == tuple(size):
        return map_1Chw
    return functional.interpolate(map_1Chw, size=size, mode="bilinear", align_corners=False)
