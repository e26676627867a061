"""A stand-in for timm with timm's own face: models that give maps, by name, and what was asked of it."""

from __future__ import annotations

import sys
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn


class Layout(str, Enum):
    """As timm.layers.Format: a str, but not one that prints as its value."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class Pyramid(nn.Module):
    """One map per stride, each a convolution; ``layout`` as its maps have it."""

    def __init__(self, strides: dict[int, int], layout: Layout | None) -> None:
        super().__init__()
        self.feature_info = SimpleNamespace(channels=lambda: list(strides.values()), reduction=lambda: list(strides))
        self.layers = nn.ModuleList(nn.Conv2d(3, width, stride, stride) for stride, width in strides.items())
        if layout is not None:
            self.output_fmt = layout

    def forward(self, image):
        maps = [layer(image) for layer in self.layers]
        return [m.permute(0, 2, 3, 1) for m in maps] if getattr(self, "output_fmt", None) == Layout.NHWC else maps


HIERARCHY = {4: 8, 8: 16, 16: 32, 32: 64}
MODELS = {
    "swinv2_tiny_window16_256": (HIERARCHY, Layout.NHWC, True),
    "window": (HIERARCHY, Layout.NHWC, True),
    "convolutional": ({2: 4, **HIERARCHY}, Layout.NCHW, False),
    "silent": (HIERARCHY, None, False),
    "column": ({16: 32}, Layout.NCHW, True),
}


def install(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Put the stand-in in timm's place; returns the calls of create_model as they come."""
    calls = []

    def create_model(name, **options):
        calls.append((name, options))
        if name not in MODELS:
            raise RuntimeError(f"Unknown model ({name})")
        strides, layout, fixed = MODELS[name]
        if "img_size" in options and not fixed:
            raise TypeError("__init__() got an unexpected keyword argument 'img_size'")
        model = Pyramid(strides, layout)
        if options["pretrained"]:
            stored = torch.load(options["pretrained_cfg_overlay"]["file"], weights_only=True)
            model.load_state_dict(stored, strict=False)  # as timm does
        return model

    timm = ModuleType("timm")
    timm.create_model = create_model
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(fixed_input_size=MODELS[name][2]) if name in MODELS else None
    monkeypatch.setitem(sys.modules, "timm", timm)
    return calls
