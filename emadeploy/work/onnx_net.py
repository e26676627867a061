"""An ONNX file as a :class:`Net`: extents and types as it has them, or as ONNX infers them. No weight is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from emadeploy.contract.errors import ArtifactError, first_line
from emadeploy.work.net import WIDTHS, Net, Node, Tensor, folded

_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
}


def read_onnx(path: Path) -> Net:
    """Return the graph in the ONNX file at ``path``, all of whose extents are fixed.

    Raises ArtifactError where it is no such graph.
    """
    try:
        return net_of(onnx.load(path, load_external_data=False))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    except Exception as error:  # protobuf and onnx have errors of their own
        raise ArtifactError(f"{path} is not an ONNX graph that can be read: {first_line(error)}") from error


def net_of(model: onnx.ModelProto) -> Net:
    """Return ``model`` as a :class:`Net`; raises ArtifactError for an extent or a type that is not known."""
    tensors = _tensors(model.graph)
    results = {name for node in model.graph.node for name in node.output if name}
    if results - tensors.keys():
        tensors |= _tensors(onnx.shape_inference.infer_shapes(model).graph)
    if unknown := sorted(results - tensors.keys()):
        raise ArtifactError(f"the extents of {unknown[0]!r} ({len(unknown)} tensors in all) are not fixed or not known")
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        # What is made of constants alone is one: the engine works it out once.
        if all(name in constants for name in node.input if name) or node.op_type == "Shape":
            constants.update(node.output)
            if node.op_type != "Shape" and any(node.input):
                tensors |= {
                    name: folded(node.op_type, tensors, [n for n in node.input if n], name) for name in node.output
                }
        else:
            nodes.append(_node(node))
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    return Net(tuple(nodes), tensors, inputs, tuple(value.name for value in graph.output), frozenset(constants))


def _node(node: onnx.NodeProto) -> Node:
    attributes: Mapping[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    return Node(
        node.name or (node.output[0] if node.output else node.op_type),
        node.op_type,
        tuple(name for name in node.input if name),
        tuple(name for name in node.output if name),
        group=attributes.get("group", 1),
        transposed=bool(attributes.get("transA", 0)),
    )


def _tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    found = {tensor.name: Tensor(tuple(tensor.dims), _type(tensor.data_type)) for tensor in graph.initializer}
    values: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.input, *graph.output)
    for value in values:
        kind = value.type.tensor_type
        fixed = kind.HasField("shape") and all(extent.HasField("dim_value") for extent in kind.shape.dim)
        if fixed and kind.elem_type:
            found[value.name] = Tensor(tuple(extent.dim_value for extent in kind.shape.dim), _type(kind.elem_type))
    return found


def _type(elem_type: int) -> str:
    found = _TYPES.get(elem_type)
    if found is None:
        name = onnx.TensorProto.DataType.Name(elem_type)
        raise ArtifactError(f"a tensor has the type {name}; known: {', '.join(WIDTHS)}")
    return found
