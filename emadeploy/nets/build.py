"""From a specification to a network with random weights."""

from __future__ import annotations

from emadeploy.contract.spec import ModelSpec
from emadeploy.nets.baselines import HardSharing, SingleTask
from emadeploy.nets.emanet import EmaNet
from emadeploy.nets.m_emanet import MEmaNet
from emadeploy.nets.network import Network

NETWORKS: dict[str, type[Network]] = {
    "emanet": EmaNet,
    "m_emanet": MEmaNet,
    "stl": SingleTask,
    "hps": HardSharing,
}


def build(spec: ModelSpec | str) -> Network:
    """Return the network that ``spec`` describes, with random weights.

    Args:
        spec: a ModelSpec, or the name of a zoo entry such as ``"emanet-nyuv2"``.

    Raises:
        SpecError: the zoo has no such entry, or its backbone is not available.
    """
    if isinstance(spec, str):
        from emadeploy import zoo  # the zoo reads yaml: only needed for names

        spec = zoo.load_spec(spec)
    return NETWORKS[spec.network](spec)
