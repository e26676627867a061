"""Backbones from the timm library, by name: `timm:swinv2_tiny_window16_256`. Needs the `timm` extra.

Shape suffixes: B batch, C channels of a map, H x W rows and columns of the image or of a map.

A backbone here gives four maps, at 1/4, 1/8, 1/16 and 1/32 of the image. Whatever timm can make such maps with will do:
convolutional networks, and hierarchical transformers, whose maps have their channels last.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from emadeploy.contract.errors import ArtifactError, BackendMissing, SpecError, first_line
from emadeploy.nets.blocks import Initialised

PREFIX = "timm:"
STRIDES = (4, 8, 16, 32)


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise BackendMissing.of("a timm backbone", str(error.name), "timm") from None
    except (ImportError, RuntimeError) as error:
        # torchvision, which timm imports, does not load beside a torch of another build.
        raise BackendMissing(
            f"a timm backbone needs timm, which cannot be imported ({first_line(error)}): install torch and "
            "torchvision from the same index, both for CPUs or both for the same CUDA"
        ) from None
    return timm


class TimmBackbone(Initialised):
    """A backbone of timm: image (B, 3, H, W) -> four maps (B, C, H, W) at :data:`STRIDES`, of ``channels`` channels.

    Args:
        name: what timm calls it, without our prefix.
        size: height and width of the image; window transformers are made for one.
        weights: a file of its ImageNet weights; random ones where it is None.

    Raises:
        BackendMissing: timm is not installed, or cannot be imported.
        SpecError: timm has no such model, or none that gives these maps.
        ArtifactError: the weights cannot be read, or are those of another model.
    """

    def __init__(self, name: str, size: tuple[int, int], weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.name, self.size = name, size
        self.model = _create(name, size, weights) if weights is None else _with_weights(name, size, weights)
        found = [int(reduction) for reduction in self.model.feature_info.reduction()]
        if not set(STRIDES) <= set(found):
            maps = ", ".join(f"1/{stride}" for stride in found)
            raise SpecError(
                f"backbone {PREFIX + name!r} gives maps at {maps} of the image; expected 1/4, 1/8, 1/16 and 1/32, as "
                "convolutional networks and hierarchical transformers (swinv2, convnext, resnet ...) have them"
            )
        self._chosen = [found.index(stride) for stride in STRIDES]
        every = self.model.feature_info.channels()
        self.channels: tuple[int, ...] = tuple(int(every[index]) for index in self._chosen)
        layout = getattr(self.model, "output_fmt", None)
        self._channels_last = getattr(layout, "value", layout) == "NHWC"

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        maps = self.model(image_B3HW)
        feats = [maps[index] for index in self._chosen]
        return [feat.permute(0, 3, 1, 2) for feat in feats] if self._channels_last else feats


def _with_weights(name: str, size: tuple[int, int], weights: str | os.PathLike[str]) -> nn.Module:
    """Return the model with the weights of a file, having seen that the file sets them.

    timm takes what fits and leaves the rest as it is: random. So what two readings do not agree on was not read.
    """
    models = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            models.append(_create(name, size, weights))
    first, second = (dict(model.named_parameters()) for model in models)
    unset = [entry for entry, tensor in first.items() if not torch.equal(tensor, second[entry])]
    if unset:
        raise ArtifactError(
            f"{weights} does not hold the weights of timm model {name!r}: it leaves {len(unset)} of {len(first)} "
            f"entries unset ({unset[0]} ...); take the file that timm names for this model"
        )
    return models[0]


def _create(name: str, size: tuple[int, int], weights: str | os.PathLike[str] | None) -> nn.Module:
    timm = _timm()
    options: dict[str, Any] = {"features_only": True, "pretrained": weights is not None}
    if weights is not None:
        options["pretrained_cfg_overlay"] = {"file": os.fspath(weights)}
    try:
        known = timm.get_pretrained_cfg(name)
        if known is not None and known.fixed_input_size:
            options["img_size"] = size
        return timm.create_model(name, **options)
    except Exception as error:  # timm's models are many, and each fails in its own way
        if weights is not None:
            raise ArtifactError(f"{weights} cannot be loaded as timm model {name!r}: {first_line(error)}") from None
        raise SpecError(
            f"backbone {PREFIX + name!r}: timm cannot make it for images of {size[0]}x{size[1]}: {first_line(error)}; "
            "timm.list_models() names what there is"
        ) from None
