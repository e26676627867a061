"""An int8 engine for a few frames: compiled from the quantised graph itself, with no audit and no artifact on disk.

A search tries dozens of engines and keeps one. Building each as users get it takes longer than judging it, and would
push the engines that they use out of the cache of compiled ones. What ships is built and judged again in the end.
"""

from __future__ import annotations

from emadeploy.build.graph import IR_NAME, OnnxGraph
from emadeploy.contract.errors import BuildError
from emadeploy.runtime import Runtime
from emadeploy.runtime.machine import usable_cores

#: Engines that compile in the process what calibration writes.
ENGINES = ("openvino",)


def open_trial(graph: OnnxGraph, target: str) -> Runtime:
    """Return the engine of the quantised ``graph``; its files stay as they are until it is closed.

    Raises BuildError for a graph that is not quantised, ArtifactError where OpenVINO cannot compile it, DeviceError.
    """
    from emadeploy.build.openvino import rest_of
    from emadeploy.runtime.backends.openvino import OpenVinoSession, check_device, compile_network

    if graph.calibration is None or not graph.ir_path.is_file():
        raise BuildError(f"{graph.folder}: this graph is not quantised: calibrate it first")
    rest = rest_of(graph, "int8")
    check_device("cpu", ("int8", rest))
    manifest = graph.manifest(target, graph.folder, (IR_NAME,), precision={}, rest=rest)
    tensors = frozenset(spec.name for spec in (*graph.inputs, *graph.outputs))
    compiled = compile_network(graph.ir_path, "cpu", rest, usable_cores())
    return Runtime(manifest, OpenVinoSession(compiled, tensors, "cpu", "graph"))
