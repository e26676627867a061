"""Putting tensors into a network by name: every entry must be there, known, and of the right shape and type."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emadeploy.contract.errors import ArtifactError

_COUNTER = "num_batches_tracked"
"""BatchNorm's count of training steps. Old files lack it; nothing here computes with it."""


def fill(module: nn.Module, entries: Mapping[str, Tensor], where: str) -> None:
    """Copy ``entries`` into ``module``, whatever float type they have; nothing is copied unless everything fits.

    Args:
        module: the network, or a part of it.
        entries: tensors by state-dict name, of ``module``.
        where: what the message starts with: the file, and what it was loaded as.

    Raises:
        ArtifactError: names all missing, unexpected and wrongly shaped or typed entries.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in entries and not name.endswith(_COUNTER)]
    unexpected = [name for name in entries if name not in wanted]
    unfit = [
        f"{name} is {_describe(entries[name])} instead of {_describe(tensor)}"
        for name, tensor in wanted.items()
        if name in entries and not _fits(entries[name], tensor)
    ]
    groups = {"missing": missing, "unexpected": unexpected, "wrong shape or type": unfit}
    if any(groups.values()):
        lines = [f"{what} ({len(found)}): {', '.join(found)};" for what, found in groups.items() if found]
        raise ArtifactError("\n".join([f"{where} does not fit:", *lines, "nothing was loaded"]))
    module.load_state_dict({**wanted, **entries})


def _fits(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and found.is_floating_point() == wanted.is_floating_point()


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def to_storage(entries: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return ``entries`` as contiguous tensors on the CPU, floating ones in the type of a file.

    With "float16" a tensor stays in float32 where the short type would cost more than its rounding: values beyond its
    range, or so small (fusion weights are about 1 / P) that they fall below it.
    """
    stored = {}
    for name, tensor in entries.items():
        exact = tensor.detach().to("cpu", copy=True).contiguous()
        stored[name] = exact
        if dtype == "float16" and exact.is_floating_point():
            short = exact.half()
            error = torch.linalg.vector_norm(exact - short.float())
            # Rounding costs at most 2^-11 of every value; anything above it comes from the range.
            if error <= 2**-11 * torch.linalg.vector_norm(exact):
                stored[name] = short
    return stored
