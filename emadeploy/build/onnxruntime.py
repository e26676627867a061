"""ONNX Runtime: the graph is the engine; the artifact adds the manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime as ort

from emadeploy.build.folder import assembled
from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.spec import TensorSpec

ENGINE_FILE = "model.onnx"
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


def build(graph: OnnxGraph, output: Path, target: str) -> Manifest:
    """Make the artifact of ``graph`` at ``output``, which it replaces in one step, and return its manifest.

    Raises BuildError where ONNX Runtime cannot load the graph, the disk refuses, or ``output`` is something else.
    """
    with assembled(output) as folder:
        engine = folder / ENGINE_FILE
        shutil.copyfile(graph.path, engine)
        _check_loads(engine, graph)
        manifest = Manifest(
            model=graph.model,
            target=target,
            precision=dict.fromkeys(graph.branches, "fp32"),
            engine_file=ENGINE_FILE,
            files={ENGINE_FILE: FileRecord.of(engine)},
            inputs=graph.inputs,
            outputs=graph.outputs,
            frame_size=graph.frame_size,
            graph=graph.facts(),
            source=graph.source,
            parity=graph.parity,
            versions={**graph.versions, "onnxruntime": ort.__version__},
        )
        manifest.write(folder)
    return manifest


def _check_loads(engine: Path, graph: OnnxGraph) -> None:
    """Load the engine as a runtime would, and compare its tensors with the record's; raises BuildError."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise BuildError(f"onnxruntime {ort.__version__} cannot load the graph {graph.path}: {reason}") from error
    tensors = ((session.get_inputs(), graph.inputs), (session.get_outputs(), graph.outputs))
    for found, wanted in tensors:
        if [_signature(tensor) for tensor in found] != [_signature_of_spec(spec) for spec in wanted]:
            raise BuildError(f"{graph.path}: its tensors are not those of its record: export again")


def _signature(tensor: ort.NodeArg) -> tuple[str, tuple[int, ...], str]:
    return tensor.name, tuple(tensor.shape), _DTYPES.get(tensor.type, tensor.type)


def _signature_of_spec(spec: TensorSpec) -> tuple[str, tuple[int, ...], str]:
    return spec.name, tuple(spec.shape), spec.dtype
