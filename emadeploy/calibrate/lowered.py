"""A graph in opset 17, the newest that TensorRT 8.6 says it reads; PyTorch's exporter writes 18.

It matters for one thing above all: from opset 18 on, the axes of a reduction are an input, and the parsers of TensorRT
8.6 and 9 do not look at it. They reduce over *all* axes, in silence: the norm of each pixel's features in CTAL would be
that of the whole map (NVIDIA/TensorRT issue 3467; onnx-tensorrt, `reduceTensor`). In opset 17 they are an attribute.

Graphs with float16 scales need opset 19 (`half_graph`); TensorRT 8.6 takes none of these, and the runtime says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

from emadeploy.calibrate.half_graph import with_types
from emadeploy.contract.errors import CalibrationError

OPSET = 17
_NEWER = 18
#: Attributes that came with opset 18, by operator, at the values at which they change nothing.
_NEUTRAL: Mapping[str, Mapping[str, object]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "ScatterElements": {},
    "ScatterND": {},
}


class _NewerError(Exception):
    """A node says what opset 17 has no words for."""


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` of opset 18 in opset 17, with the same names and results; as it is where a node needs 18."""
    [entry] = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if entry.version != _NEWER or any(found.type in graphs for node in model.graph.node for found in node.attribute):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    try:
        for node in copy.graph.node:
            _lower(node, constants)
        [entry] = [entry for entry in copy.opset_import if entry.domain in ("", "ai.onnx")]
        entry.version = OPSET
        typed = with_types(copy)
    except (_NewerError, CalibrationError):
        return model
    _forget_unread(typed.graph)
    onnx.checker.check_model(typed)
    return typed


def _lower(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    if node.domain not in ("", "ai.onnx") or onnx.defs.get_schema(node.op_type, _NEWER).since_version != _NEWER:
        return
    if node.op_type.startswith("Reduce"):
        _axes_as_attribute(node, constants)
    elif node.op_type == "Split":
        # Without sizes both share out evenly; parts that are not even fail when the types are inferred.
        _drop(node, "num_outputs")
    elif node.op_type == "Pad":
        if len(node.input) > 3 and node.input[3]:
            raise _NewerError
        del node.input[3:]
    elif node.op_type in _NEUTRAL:
        for attribute in list(node.attribute):
            neutral = _NEUTRAL[node.op_type].get(attribute.name)
            if neutral is not None and helper.get_attribute_value(attribute) == neutral:
                _drop(node, attribute.name)
    else:
        raise _NewerError
    known = onnx.defs.get_schema(node.op_type, OPSET).attributes
    if any(attribute.name not in known for attribute in node.attribute):
        raise _NewerError


def _axes_as_attribute(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    name = node.input[1] if len(node.input) > 1 else ""
    if name and name not in constants:
        raise _NewerError
    axes = numpy_helper.to_array(constants[name]).tolist() if name else []
    if not axes and any(found.name == "noop_with_empty_axes" and found.i for found in node.attribute):
        raise _NewerError
    _drop(node, "noop_with_empty_axes")
    del node.input[1:]
    if axes:
        node.attribute.append(helper.make_attribute("axes", axes))


def _drop(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _forget_unread(graph: onnx.GraphProto) -> None:
    """Leave out constants that nothing reads: axes, now that they are attributes."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
