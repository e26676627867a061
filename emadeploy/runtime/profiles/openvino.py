"""Times of OpenVINO's layers, from the profile of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from emadeploy.contract.branches import OTHER, layer_branch
from emadeploy.contract.errors import DeviceError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.backends.openvino import (
    COMPUTE,
    VERSION,
    Ran,
    check_device,
    compile_network,
    layers,
    reason,
)
from emadeploy.runtime.profile import LayerTime
from emadeploy.runtime.session import Array


def profile(
    directory: Path, manifest: Manifest, inputs: Mapping[str, Array], *, threads: int, device: str | None, runs: int
) -> list[LayerTime]:
    """Return the layers of an artifact; see :class:`emadeploy.runtime.profile.Profiler`."""
    device = device or "cpu"
    check_device(device, (TARGETS[manifest.target][1], manifest.rest))
    compiled = compile_network(directory / manifest.engine_file, device, manifest.rest, threads, measure=True)
    (tensor,) = inputs.values()
    times: dict[str, list[float]] = {}
    try:
        request = compiled.create_infer_request()
        for run in range(1 + runs):
            request.infer({0: tensor})
            for layer in request.profiling_info if run else ():
                if layer.status == layer.Status.EXECUTED:
                    times.setdefault(layer.node_name, []).append(layer.real_time.total_seconds() * 1e3)
    except RuntimeError as error:
        raise DeviceError(f"OpenVINO {VERSION} failed while running: {reason(error)}") from None
    ran = layers(compiled)
    outputs = {spec.name: f"heads.{spec.name}" for spec in manifest.outputs}
    found = []
    for layer, branch in zip(ran, layer_branches(ran, outputs), strict=True):
        if layer.name in times:
            name = next(iter(graph_nodes(layer)), layer.name)
            found.append(LayerTime(name, layer.kind, branch, layer.precision, median(times[layer.name])))
    return found


def graph_nodes(layer: Ran) -> tuple[str, ...]:
    """Return the nodes of the graph that a layer computes."""
    return tuple(name.removesuffix("/WithoutBiases") for name in layer.nodes)


def layer_branches(ran: Sequence[Ran], outputs: Mapping[str, str]) -> list[str]:
    """Return the branch of each layer, in order.

    A layer that belongs to no node, such as a change of layout, is part of the branch from which its input comes.
    ``outputs`` names the branch of nodes that bear the name of an output.
    """
    branches: list[Any] = []
    for layer in ran:
        branch = layer_branch(graph_nodes(layer), compute=layer.kind in COMPUTE, outputs=outputs)
        branches.append(branches[layer.feeds] if branch == OTHER and layer.feeds is not None else branch)
    return branches
