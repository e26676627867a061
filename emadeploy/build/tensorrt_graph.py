"""A graph as the rules of TensorRT look at it: its nodes, its constants, who makes each tensor, and the tensors'
types."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import onnx

from emadeploy.contract.errors import BuildError, first_line

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
TYPES = onnx.TensorProto.DataType
#: What breaks a rule: the name of the node, what is wrong and what to do.
Broken = tuple[str, str]


@dataclass
class Graph:
    """The graph of ``model``. ``kept``: nodes left in float on purpose. ``types``: of every tensor that has one."""

    model: onnx.ModelProto
    kept: Collection[str] = ()
    constants: dict[str, onnx.TensorProto] = field(init=False)
    maker: dict[str, onnx.NodeProto] = field(init=False)
    types: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.maker = {result: node for node in self.nodes() for result in node.output}
        # Lenient: a graph whose types do not fit is what the rules are to find.
        try:
            graph = onnx.shape_inference.infer_shapes(self.model).graph
        except onnx.shape_inference.InferenceError as error:
            raise BuildError(f"not a graph of ONNX {onnx.__version__}: {first_line(error)}") from None
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}

    def nodes(self, *types: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of these types, without any of all."""
        return (node for node in self.model.graph.node if not types or node.op_type in types)

    def pair(self, tensor: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that makes ``tensor``; ``None`` where something else does."""
        node = self.maker.get(tensor)
        return node if node is not None and node.op_type == DEQUANTISE else None

    def type_name(self, tensor: str) -> str:
        """Return the type of a tensor as numpy calls it."""
        return _NUMPY.get(self.types.get(tensor, 0), TYPES.Name(self.types.get(tensor, 0)).lower())


_NUMPY = {TYPES.FLOAT: "float32", TYPES.DOUBLE: "float64"}
