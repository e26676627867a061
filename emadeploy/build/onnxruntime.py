"""ONNX Runtime: the graph is the engine; the artifact adds the manifest, and for int8 the audit."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from emadeploy.build.audit import FRAMES, Layer, audit, check_obtained, made_input, obtained
from emadeploy.build.folder import assembled
from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.branches import layer_branch
from emadeploy.contract.errors import BuildError, first_line
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.contract.spec import TensorSpec
from emadeploy.runtime.backends.onnxruntime import session_options
from emadeploy.runtime.machine import cpu_model, usable_cores
from emadeploy.runtime.profiles.onnxruntime import is_compute, kernel_precision, kernel_runs, node_name

ENGINE_FILE = "model.onnx"
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


def build(graph: OnnxGraph, output: Path, target: str) -> Manifest:
    """Make the artifact of ``graph`` for ``target``; see :class:`emadeploy.build.Build`.

    For int8 the graph holds Q/DQ, and a few made frames run through ONNX Runtime as the runtime uses it: a convolution
    or product that stays in float although nobody exempted it is a BuildError.
    """
    precision = TARGETS[target][1]
    if precision == "int8" and graph.calibration is None:
        raise BuildError(f"{graph.folder}: int8 was asked for, and this graph is not quantised: calibrate it first")
    record: dict[str, Any] | None = None
    obtained_precision = dict.fromkeys(graph.branches, "fp32")
    with assembled(output) as folder:
        engine = folder / ENGINE_FILE
        shutil.copyfile(graph.path, engine)
        _check_loads(engine, graph)
        if precision == "int8":
            layers = _run_layers(graph)
            check_obtained(layers, target, defaultdict(lambda: precision, graph.asked), graph.kept)
            version = f"onnxruntime {ort.__version__}"
            record = audit(layers, engine=version, machine=cpu_model(), branches=graph.branches)
            obtained_precision = obtained(record)
        manifest = graph.manifest(
            target,
            folder,
            (ENGINE_FILE,),
            precision=obtained_precision,
            versions={"onnxruntime": ort.__version__},
            audit=record,
        )
        manifest.write(folder)
    return manifest


def _check_loads(engine: Path, graph: OnnxGraph) -> None:
    """Load the engine as a runtime would, and compare its tensors with the record's; raises BuildError."""
    try:
        session = ort.InferenceSession(str(engine), session_options(1), providers=["CPUExecutionProvider"])
    except Exception as error:
        version = ort.__version__
        raise BuildError(f"onnxruntime {version} cannot load the graph {graph.path}: {first_line(error)}") from error
    tensors = ((session.get_inputs(), graph.inputs), (session.get_outputs(), graph.outputs))
    for found, wanted in tensors:
        if [_signature(tensor) for tensor in found] != [_signature_of_spec(spec) for spec in wanted]:
            raise BuildError(f"{graph.path}: its tensors are not those of its record: export again")


def _run_layers(graph: OnnxGraph) -> list[Layer]:
    """Run made frames and return the kernels that ran, from ONNX Runtime's own profile."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(usable_cores())
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])
        for seed in range(1 + FRAMES):
            session.run(None, {graph.inputs[0].name: made_input(graph, seed)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return layers_of_profile(events, onnx.load(graph.path, load_external_data=False).graph.node)


def layers_of_profile(events: Iterable[Mapping[str, Any]], nodes: Iterable[onnx.NodeProto]) -> list[Layer]:
    """Return the kernels of a profile, in the order of their first run, with their mean time without that first run.

    ``nodes`` are those of the graph that ran.
    """
    runs = kernel_runs(events)
    by_tensor = {tensor: node for node in nodes for tensor in node.output}
    named = {kernel: node_name(kernel) for kernel in runs}
    layers = []
    for kernel, times in runs.items():
        compute = is_compute(times[0]["args"]["op_name"])
        mean = sum(event["dur"] for event in times[1:]) / max(1, len(times) - 1)
        name = named[kernel]
        computed = (name,)
        if name in by_tensor:
            computed = (by_tensor[name].name,)
            if compute:
                computed = _fused(by_tensor[name], by_tensor, {*named.values()})
        branch = layer_branch(computed, compute=compute)
        layers.append(Layer(computed, branch, kernel_precision(times[0], compute=compute), mean, compute))
    return layers


def _fused(last: onnx.NodeProto, by_tensor: Mapping[str, onnx.NodeProto], kernels: Set[str]) -> tuple[str, ...]:
    """Return the nodes of a convolution or product that ONNX Runtime named after the ``last`` one fused into it.

    The convolution is found on the way back from there; of two, such as around a sum, it is the one that did not run by
    its own name.
    """
    path = [last]
    while not is_compute(path[-1].op_type):
        before = [by_tensor[tensor] for tensor in path[-1].input if tensor in by_tensor]
        inside = [node for node in before if not kernels & {node.name, *node.output}]
        if not inside:
            break
        path.append(min(inside, key=lambda node: not is_compute(node.op_type)))
    return tuple(node.name for node in reversed(path))


def _signature(tensor: ort.NodeArg) -> tuple[str, tuple[int, ...], str]:
    return tensor.name, tuple(tensor.shape), _DTYPES.get(tensor.type, tensor.type)


def _signature_of_spec(spec: TensorSpec) -> tuple[str, tuple[int, ...], str]:
    return spec.name, tuple(spec.shape), spec.dtype
