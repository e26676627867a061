"""The arithmetic of a graph: multiplications per compute node."""

from __future__ import annotations

import math

import onnx

COMPUTE = ("Conv", "Gemm", "MatMul")


def work_of(model: onnx.ModelProto) -> dict[str, float]:
    """Return the multiply-accumulates of every convolution and matrix product, by node, in the order of the graph.

    All extents must be fixed, as in every graph of this project.
    """
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return {node.name: _work(node, shapes) for node in graph.node if node.op_type in COMPUTE}


def _work(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> float:
    result = math.prod(shapes[node.output[0]])
    left, right = (shapes[name] for name in node.input[:2])
    if node.op_type == "Conv":
        # weight (O, I / groups, h, w): what one value of the result sums up
        return float(result * math.prod(right[1:]))
    transposed = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    return float(result * left[-2 if transposed else -1])


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(extent.dim_value for extent in value.type.tensor_type.shape.dim)
