"""TensorRT: a portable artifact, the graph with its Q/DQ, for the device to compile.

TensorRT's engines never cross platforms, so what is made here needs no NVIDIA library: the graph, checked against what
TensorRT takes, and a manifest that says which precision is asked for. None is obtained, and none is claimed, before
the device has compiled it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from emadeploy.build.folder import assembled
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt_rules import check_rules
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import TARGETS, Manifest

ENGINE_FILE = "model.onnx"


def build(graph: OnnxGraph, output: Path, target: str) -> Manifest:
    """Make the portable artifact of ``graph`` for ``target``; see :class:`emadeploy.build.Build`.

    Its engine file is the graph itself, not compiled: 'precision' is empty, there is no audit, and 'asked' names the
    precision of every branch. Raises BuildError for a target other than trt-int8, a graph that is not quantised, and a
    node that breaks a rule of TensorRT (`tensorrt_rules`).
    """
    if target != "trt-int8":
        raise BuildError(f"target {target!r} is not in this version; for TensorRT it builds trt-int8")
    if graph.calibration is None:
        raise BuildError(f"{graph.folder}: int8 was asked for, and this graph is not quantised: calibrate it first")
    try:
        check_rules(onnx.load(graph.path), graph.kept)
    except BuildError as error:
        raise BuildError(f"{graph.path} is no graph for TensorRT: {error}") from None
    with assembled(output) as folder:
        shutil.copyfile(graph.path, folder / ENGINE_FILE)
        manifest = graph.manifest(
            target,
            folder,
            (ENGINE_FILE,),
            precision={},
            asked={**dict.fromkeys(graph.branches, TARGETS[target][1]), **graph.asked},
            rest=graph.calibration.get("rest", "fp32"),
        )
        manifest.write(folder)
    return manifest
