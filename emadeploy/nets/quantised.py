"""What fine-tuning with fake quantisation trains: a network seen through integers, and scales beside its weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from emadeploy.contract.errors import ArtifactError
from emadeploy.nets.network import Network

#: The file of a checkpoint that holds `QuantisedNetwork.learned`, as json.
QUANTISATION = "quantisation.json"
SCHEMA = 1


class QuantisedNetwork(nn.Module):
    """Base of networks that answer as int8 would: image (B, 3, H, W) -> `<task>` -> raw map (B, C, H, W), float32.

    ``network`` has the weights that are trained and kept.
    """

    network: Network

    def scales(self) -> Iterable[nn.Parameter]:
        """Return the parameters that are no weights of the network: logarithms of scales."""
        raise NotImplementedError

    def learned(self) -> dict[str, Any]:
        """Return, as plain data, the target, the recipe, and 'ranges': tensor -> (low, high), as they stand now."""
        raise NotImplementedError

    def deploy(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return the final maps alone, which are all that there are."""
        maps: dict[str, Tensor] = self(image_B3HW)
        return maps


def to_json(network: QuantisedNetwork) -> bytes:
    """Return the content of the checkpoint's file."""
    return (json.dumps({"schema": SCHEMA, **network.learned()}, indent=1) + "\n").encode()


def from_json(content: bytes, where: str) -> dict[str, Any]:
    """Return what a checkpoint's file says; raises ArtifactError naming it, ``where``, unless this version reads it."""
    try:
        data = json.loads(content)
        schema = data.pop("schema", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{where} is not the record of learned scales ({error}): train again with --qat") from None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{where} has schema {schema!r}, this version of emadeploy reads {SCHEMA}: update emadeploy"
        )
    return dict(data)
