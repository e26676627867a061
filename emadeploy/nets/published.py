"""Weights that others have published: whole checkpoints in the published names, and ImageNet weights of the backbone.

Our module names are the published ones, so importing is unwrapping: a file may hold the plain state dict, or hold it
under a key, or prefix every name with that of a wrapper.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.build import build
from emadeploy.nets.entries import fill
from emadeploy.nets.network import Network
from emadeploy.nets.timm_backbone import TimmBackbone

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training frameworks keep the state dict."""

_WRAPPED = re.compile(r"((model|module|net|network)\.)*")
"""Prefixes that wrappers (Lightning modules, DataParallel) put before every name, one inside the other."""

CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
"""Parts of the public ImageNet checkpoints that classify the image; a dense network has no use for them."""

_FOREIGN_CLASS = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL|Unsupported class) (\S+)")


def import_published(file: str | os.PathLike[str], spec: ModelSpec) -> Network:
    """Return the network of ``spec`` with the weights of a published checkpoint.

    Args:
        file: .pth, .pt, .ckpt (read without running a pickle) or .safetensors.
        spec: the model it belongs to: the same network, tasks in the same order, and image size.

    Raises:
        ArtifactError: the file cannot be read, or does not fit; all entries that do not are named.
    """
    model = build(spec)
    entries = _without_wrapper(read_entries(file), model.state_dict())
    fill(model, entries, f"{file} as model {spec.name!r} ({spec.network}, {_tasks(spec)}, {_size(spec)})")
    return model


def load_backbone(model: Network, file: str | os.PathLike[str]) -> None:
    """Give every backbone of ``model`` the ImageNet weights in ``file``.

    Those of an HRNet in the published names (see `import_published`), those of a backbone of timm as timm reads them.

    Raises:
        ArtifactError: the file cannot be read, or holds the weights of another network.
    """
    if foreign := model.timm_backbones():
        first = next(iter(foreign.values()))
        donor = TimmBackbone(first.name, first.size, weights=file).state_dict()
        for backbone in foreign.values():
            backbone.load_state_dict(donor)
        return
    hrnets = model.hrnets()
    entries = _without_wrapper(read_entries(file), next(iter(hrnets.values())).state_dict())
    kept = {name: tensor for name, tensor in entries.items() if not name.startswith(CLASSIFIER)}
    for hrnet in hrnets.values():
        fill(hrnet, kept, f"{file} as backbone HRNet-W18-Small-v2")


def read_entries(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors, .pth, .pt or .ckpt file, taken out of its container.

    Raises:
        ArtifactError: the file is missing, truncated, not of a kind that can be read safely, or holds no state dict.
    """
    path = Path(file)
    if not path.is_file():
        raise ArtifactError(f"{path} {'is not a file' if path.exists() else 'does not exist'}; expected weights")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ArtifactError(f"{path} holds {type(content).__name__}, expected a state dict: tensors by name")
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ArtifactError(
            f"{path} holds no state dict: {', '.join(foreign)} are no tensors; expected tensors by name, "
            f"or such a mapping under one of {', '.join(CONTAINERS)}"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a complete safetensors file ({error}); download it again") from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes reach the reader, and it fails on them in any way (IndexError, ...)
        named = _FOREIGN_CLASS.search(str(error))
        if named:
            raise ArtifactError(
                f"{path} holds more than weights ({named.group(1)}), and reading that runs code of the file. Where you "
                "trust it, load it with torch.load(weights_only=False) and save its state dict alone with torch.save"
            ) from None
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ArtifactError(f"{path} is not a complete PyTorch file ({reason}); download it again") from None


def _without_wrapper(entries: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries under the wrapper's prefix that holds most of the wanted names, without that prefix.

    What lies outside the wrapped network (a Lightning module's losses and metrics) is no part of it. Without a wrapper
    every entry counts.
    """
    prefixes = {_WRAPPED.match(name).group() for name in entries}
    prefix = max(sorted(prefixes), key=lambda p: sum(p + name in entries for name in wanted))
    return {name.removeprefix(prefix): tensor for name, tensor in entries.items() if name.startswith(prefix)}


def _tasks(spec: ModelSpec) -> str:
    return "+".join(spec.task_names)


def _size(spec: ModelSpec) -> str:
    return f"{spec.input.height}x{spec.input.width}"
