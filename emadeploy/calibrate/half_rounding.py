"""What a strongly typed graph computes, in float32 on any CPU: each float16 result is rounded to float16, and only it.

ONNX Runtime has no float16 kernels on most CPUs. It puts a Cast in front of each float16 node and one behind, and
then takes out the pairs that meet: between two such nodes nothing is rounded, at any level of optimisation. So a
typed graph run by it shows float32's accuracy under float16's name. Pairs of Casts that stand in the graph it leaves
alone; `rounded` writes them, one behind each node that makes new values.

Sums are rounded once, when they are done, as where an engine adds up in float32. TensorRT may add up in float16; what
that could hurt stays in float32 by rule (`half_choice`).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from emadeploy.calibrate.half_graph import EXACT, FLOAT, HALF, with_types


def rounded(typed: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``typed``, as `half.to_half` makes it, in float32, with pairs of Casts where it rounds to float16."""
    graph = typed.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    # Rounding and cutting off at 0 can change places, and engines fuse what stands together.
    cut = {
        name: found[0].output[0] for name, found in readers.items() if len(found) == 1 and found[0].op_type == "Relu"
    }
    late = {behind for name, behind in cut.items() if types.get(name) == HALF}
    nodes: list[onnx.NodeProto] = []
    same: dict[str, str] = {}
    for node in graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Cast" and types[node.output[0]] == FLOAT and types.get(node.input[0]) == HALF:
            if node.output[0] in {value.name for value in graph.output}:
                new.op_type = "Identity"
                del new.attribute[:]
                nodes.append(new)
            else:
                same[node.output[0]] = new.input[0]
            continue
        for attribute in new.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
                attribute.i = FLOAT
        nodes.append(new)
        for index, name in enumerate(node.output):
            exact = node.op_type in EXACT and name not in late
            if types.get(name) == HALF and not exact and name not in cut:
                new.output[index] = f"{name}/exact"
                nodes += _rounding(node.name, new.output[index], name)
    return _finished(typed, nodes)


def _rounding(called: str, source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [source], [f"{result}/half"], name=f"{called}/round", to=HALF),
        helper.make_node("Cast", [f"{result}/half"], [result], name=f"{called}/widen", to=FLOAT),
    ]


def _finished(typed: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(typed)
    graph = model.graph
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if tensor.data_type == HALF:
            wide = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(wide), tensor.name))
    del graph.value_info[:]
    return with_types(model)
