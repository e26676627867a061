"""Times of TensorRT's layers, from its profiler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from emadeploy.contract.branches import layer_branch
from emadeploy.contract.errors import DeviceError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.backends.tensorrt import profile_runs
from emadeploy.runtime.profile import LayerTime
from emadeploy.runtime.session import Array
from emadeploy.runtime.trt.layers import from_inspector

_UNKNOWN = "unknown"


def profile(
    directory: Path, manifest: Manifest, inputs: Mapping[str, Array], *, threads: int, device: str | None, runs: int
) -> list[LayerTime]:
    """Return the layers of an artifact; see :class:`emadeploy.runtime.profile.Profiler`.

    Each frame runs without a CUDA graph, which tells no layers. What the inspector does not know by the profiler's name
    has 'unknown' as its kind and precision.
    """
    told, times = profile_runs(directory, manifest, inputs, device=device, runs=runs)
    if not times:
        raise DeviceError(f"{directory}: TensorRT told its profiler no time of any layer; trtexec --dumpProfile may")
    known = {layer.name: layer for layer in from_inspector(told)}
    found = []
    for name, milliseconds in times.items():
        layer = known.get(name)
        nodes = (layer.nodes if layer else ()) or (name,)
        branch = layer_branch(nodes, compute=layer is not None and layer.compute)
        kind, precision = (layer.kind, layer.precision) if layer else (_UNKNOWN, _UNKNOWN)
        found.append(LayerTime(nodes[0], kind, branch, precision, median(milliseconds)))
    return found
