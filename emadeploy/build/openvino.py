"""OpenVINO: the graph becomes an intermediate representation of its own, compiled on the device when it loads."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import openvino as ov

from emadeploy.build.audit import FRAMES, Layer, audit, check_obtained, made_input, obtained
from emadeploy.build.folder import assembled
from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import ArtifactError, BuildError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.backends.openvino import (
    COMPUTE,
    VERSION,
    check_device,
    compile_network,
    layers,
    reason,
    signature,
)
from emadeploy.runtime.machine import cpu_model, usable_cores
from emadeploy.runtime.profiles.openvino import graph_nodes, layer_branches
from emadeploy.runtime.runtime import load

ENGINE_FILE = "model.xml"
WEIGHTS_FILE = "model.bin"


def build(graph: OnnxGraph, output: Path, target: str) -> Manifest:
    """Make the artifact of ``graph`` for ``target``; see :class:`emadeploy.build.Build`.

    int8 takes the quantised form of the graph, which calibration leaves beside it. The artifact is compiled as the
    runtime does and a few made frames run: what each layer ran in goes into the manifest, and a precision that was
    asked for and not obtained is a BuildError.
    """
    precision = TARGETS[target][1]
    rest = rest_of(graph, precision)
    check_device("cpu", (precision, rest))
    with assembled(output) as folder:
        _write_network(graph, precision, folder / ENGINE_FILE)
        found = _run_layers(graph, folder / ENGINE_FILE, rest)
        wanted = defaultdict(lambda: precision, graph.asked)
        check_obtained(found, target, wanted, graph.kept)
        record = audit(found, engine=f"openvino {VERSION}", machine=cpu_model(), branches=graph.branches)
        manifest = graph.manifest(
            target,
            folder,
            (ENGINE_FILE, WEIGHTS_FILE),
            precision=obtained(record),
            versions={"openvino": VERSION},
            rest=rest,
            audit=record,
        )
        manifest.write(folder)
        _check_loads(folder)
    return manifest


def _check_loads(artifact: Path) -> None:
    """Load the artifact as its users will, and run a frame; raises BuildError where that fails."""
    try:
        load(artifact).close()
    except ArtifactError as error:
        raise BuildError(f"what was built cannot be loaded again: {error}") from error


def rest_of(graph: OnnxGraph, precision: str) -> str:
    """Return 'bf16' or 'fp32', what runs the layers that are not int8: OpenVINO has one precision for all of them.

    ``precision`` is that of the target.
    """
    calibrated = (graph.calibration or {}).get("rest")
    return "bf16" if "bf16" in (precision, calibrated, *graph.asked.values()) else "fp32"


def _write_network(graph: OnnxGraph, precision: str, path: Path) -> None:
    """Write the network in OpenVINO's form, the same bytes whenever it is written.

    Weights stay float32 for bf16 too: float16 would halve the file, and lose what bf16 keeps - it has no digits left
    below 6e-5, and ends at 65504. OpenVINO rounds them to bf16 once, when it compiles.
    """
    source = graph.path
    if precision == "int8":
        source = graph.ir_path
        if graph.calibration is None or not source.is_file():
            raise BuildError(f"{graph.folder}: int8 was asked for, and this graph is not quantised: calibrate it first")
    try:
        # read_model, and not convert_model, which sends telemetry.
        network = ov.Core().read_model(str(source))
        _settle_names(network, graph)
        ov.save_model(network, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise BuildError(f"OpenVINO {VERSION} cannot load the graph {source}: {reason(error)}") from None
    for ports, specs in ((network.inputs, graph.inputs), (network.outputs, graph.outputs)):
        wanted = [(spec.name, tuple(spec.shape), spec.dtype) for spec in specs]
        names = [spec.name for spec in specs]
        if sorted(signature(port, names) for port in ports) != sorted(wanted):
            raise BuildError(f"{source}: its tensors are not those of its record: export again")


def _settle_names(network: Any, graph: OnnxGraph) -> None:
    """Number the nodes that OpenVINO named, which counts on within a process, and leave each port its one name."""
    for index, node in enumerate(network.get_ordered_ops()):
        if re.fullmatch(rf"{node.get_type_name()}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}.{index}")
    ours = {spec.name for spec in (*graph.inputs, *graph.outputs)}
    for port in (*network.inputs, *network.outputs):
        names = port.get_names()
        if len(names) > 1 and len(names & ours) == 1:
            port.get_tensor().set_names(names & ours)


def _run_layers(graph: OnnxGraph, engine: Path, rest: str) -> list[Layer]:
    """Run made frames through the network at ``engine``, as the runtime compiles it; return its layers."""
    try:
        compiled = compile_network(engine, "cpu", rest, usable_cores(), measure=True)
    except ArtifactError as error:
        raise BuildError(str(error)) from None
    request = compiled.create_infer_request()
    frames = [made_input(graph, seed) for seed in range(1 + FRAMES)]
    request.infer({0: frames[0]})
    cold = [layer.microseconds for layer in layers(compiled)]
    for frame in frames[1:]:
        request.infer({0: frame})
    return _layers_of_graph(graph, compiled, cold)


def _layers_of_graph(graph: OnnxGraph, compiled: Any, cold: list[float | None]) -> list[Layer]:
    """Return the layers that ran; ``cold`` are their times in the first frame, which OpenVINO counts into its mean."""
    outputs = {spec.name: f"heads.{spec.name}" for spec in graph.outputs if f"heads.{spec.name}" in graph.branches}
    ran = layers(compiled)
    found = []
    for layer, branch, first in zip(ran, layer_branches(ran, outputs), cold, strict=True):
        if layer.microseconds is not None and first is not None:
            warm = max(0.0, (layer.microseconds * (1 + FRAMES) - first) / FRAMES)
            found.append(Layer(graph_nodes(layer), branch, layer.precision, warm, layer.kind in COMPUTE))
    return found
