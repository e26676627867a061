"""A graph of one frame as a graph of any number of them, for a server that gathers requests.

CTAL has no axis for frames: its products are over pixels and channels. So the graph itself becomes the body of a Scan
(ONNX operator 16), which runs it on one frame after the other and stacks the answers. They are those of the graph
alone, to the bit. What a batch saves is requests and their scheduling, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

from emadeploy.contract.spec import frame_shape

_AXES = "batch/axes"


def batched(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model``, of static shapes, with a dynamic first axis at every input and output: that of the frames."""
    graph = model.graph
    rename = {value.name: f"{value.name}/one" for value in (*graph.input, *graph.output)}
    body = onnx.GraphProto()
    body.CopyFrom(graph)
    for node in body.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    del body.input[:], body.output[:]
    body.initializer.append(helper.make_tensor(_AXES, onnx.TensorProto.INT64, [1], [0]))
    before = [_reshaped("Unsqueeze", value, f"{value.name}/slice", rename[value.name]) for value in graph.input]
    after = [_reshaped("Squeeze", value, rename[value.name], f"{value.name}/slice") for value in graph.output]
    nodes = [*before, *body.node, *after]
    del body.node[:]
    body.node.extend(nodes)
    body.input.extend(_slices(graph.input))
    body.output.extend(_slices(graph.output))
    scan = helper.make_node(
        "Scan",
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        name="batch/Scan",
        num_scan_inputs=len(graph.input),
        body=body,
    )
    outer = helper.make_graph([scan], graph.name, _batches(graph.input), _batches(graph.output))
    made = helper.make_model(outer, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(made)
    return made


def _reshaped(operator: str, value: onnx.ValueInfoProto, given: str, result: str) -> onnx.NodeProto:
    name = f"batch/{operator}.{value.name}"
    if frame_shape(_shape(value)) == _shape(value):
        return helper.make_node("Identity", [given], [result], name=name)
    return helper.make_node(operator, [given, _AXES], [result], name=name)


def _slices(values: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(f"{value.name}/slice", _type(value), frame_shape(_shape(value)))
        for value in values
    ]


def _batches(values: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(value.name, _type(value), ("frames", *frame_shape(_shape(value))))
        for value in values
    ]


def _type(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(extent.dim_value for extent in value.type.tensor_type.shape.dim)
