"""TensorRT and TensorRT for RTX: a portable artifact, the strongly typed graph, for the device to compile.

TensorRT's engines never cross platforms, so what is made here needs no NVIDIA library: the graph, which says the type
of each tensor, checked against what TensorRT takes, and a manifest that says which precision is asked for. None is
obtained, and none is claimed, before the device has compiled it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx

from emadeploy.build.folder import assembled
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt_graph import QUANTISE, Graph
from emadeploy.build.tensorrt_parser import PARSER, parsed_by
from emadeploy.build.tensorrt_rules import check_rules
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import TARGETS, Manifest

ENGINE_FILE = "model.onnx"
ENGINES = ("tensorrt", "tensorrt_rtx")
#: What a manifest says of int8 for an engine whose documentation has it for weights alone.
RTX_INT8 = (
    "TensorRT for RTX documents int8 for products that quantise their weights alone: that this graph builds says "
    "nothing of its speed; measure it"
)


def build(graph: OnnxGraph, output: Path, target: str) -> Manifest:
    """Make the portable artifact of ``graph`` for ``target``; see :class:`emadeploy.build.Build`.

    Its engine file is the graph itself, not compiled: 'precision' is empty, there is no audit, and 'asked' names the
    precision of every branch. Raises BuildError for a target of another engine, a graph whose types are not those that
    the target and its record say, and a node that breaks a rule of TensorRT (`tensorrt_rules`), or that the parser of
    TensorRT for RTX does not take, where that is installed (`tensorrt_parser`).
    """
    engine, precision = TARGETS[target]
    if engine not in ENGINES:
        raise BuildError(f"target {target!r} is for {engine}; this makes graphs for {' and '.join(ENGINES)}")
    rest = _rest(graph, precision)
    model = onnx.load(graph.path)
    try:
        # Where nothing shall be int8, everything stays in float on purpose.
        check_rules(model, graph.kept if precision == "int8" else {node.name for node in model.graph.node})
    except BuildError as error:
        raise BuildError(f"{graph.path} is no graph for TensorRT: {error}") from None
    _check_typed(graph, model, precision, rest)
    parser = parsed_by(graph.path)
    if target == "trt-rtx-int8":
        graph = replace(graph, notes=(*graph.notes, RTX_INT8))
    with assembled(output) as folder:
        shutil.copyfile(graph.path, folder / ENGINE_FILE)
        manifest = graph.manifest(
            target,
            folder,
            (ENGINE_FILE,),
            precision={},
            asked={**dict.fromkeys(graph.branches, precision), **graph.asked},
            rest=rest,
            versions={PARSER: parser} if parser else {},
        )
        manifest.write(folder)
    return manifest


def _rest(graph: OnnxGraph, precision: str) -> str:
    """Return what is not int8: float16 for fp16, what the record says for int8."""
    if precision == "int8" and graph.calibration is None:
        raise BuildError(f"{graph.folder}: int8 was asked for, and this graph is not quantised: calibrate it first")
    return {"fp32": "fp32", "fp16": "fp16"}.get(precision) or str((graph.calibration or {}).get("rest", "fp32"))


def _check_typed(graph: OnnxGraph, model: onnx.ModelProto, precision: str, rest: str) -> None:
    """Raise BuildError where the types that stand in the graph are not those that were asked for."""
    found = Graph(model)
    has_half = onnx.TensorProto.FLOAT16 in found.types.values()
    if has_half != (rest == "fp16"):
        have = "holds float16" if has_half else "is all float32"
        raise BuildError(
            f"{graph.path} {have}, and {precision} with the rest in {rest} was asked for: type it with "
            "emadeploy.calibrate.half, or ask for what it is"
        )
    if precision != "int8" and any(found.nodes(QUANTISE)):
        raise BuildError(f"{graph.path} holds Q/DQ, and {precision} was asked for: take the graph before calibration")
