"""What TensorRT takes of a graph with Q/DQ, checked on the graph alone: better said here than by a parser on a robot.

The rules are those of its documentation and of its ONNX parser, versions 8 to 11; `check_rules` names the node that
breaks one, what is wrong with it, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import onnx
from onnx import helper, numpy_helper

from emadeploy.build import tensorrt_types as typed
from emadeploy.build.tensorrt_graph import DEQUANTISE, QUANTISE, TYPES, Broken, Graph
from emadeploy.contract.branches import branch_of
from emadeploy.contract.errors import BuildError


def check_rules(model: onnx.ModelProto, kept: Collection[str] = ()) -> None:
    """Check that TensorRT takes ``model``, whose nodes ``kept`` stay in float on purpose.

    Raises BuildError that names the first node that breaks a rule, and how many more do.
    """
    graph = Graph(model, kept)
    broken = [found for rule in RULES for found in rule(graph)]
    if broken:
        (node, what), more = broken[0], len(broken) - 1
        raise BuildError(
            f"node {node!r}: {what}" + (f" ({more} more like it, or that break other rules)" if more else "")
        )


def _integers(graph: Graph) -> Iterator[Broken]:
    """The only integers are int8: uint8 is not taken, and the parser refuses int32, a quantised bias."""
    for node in graph.nodes(QUANTISE, DEQUANTISE):
        read = [graph.constants[name] for name in (node.input[0], *node.input[2:]) if name in graph.constants]
        types = {tensor.data_type for tensor in read} - {TYPES.INT8, TYPES.FLOAT, TYPES.FLOAT16}
        if TYPES.INT32 in types:
            yield node.name, "an int32 bias, which TensorRT's parser refuses: calibrate with biases in float"
        elif types:
            found = TYPES.Name(min(types)).lower()
            yield node.name, f"integers of {found}; TensorRT multiplies int8 alone: calibrate with types: S8S8"
        elif node.op_type == QUANTISE and len(node.input) < 3:
            yield node.name, "no zero point, which means uint8; TensorRT multiplies int8 alone: give an int8 zero"


def _zero_points(graph: Graph) -> Iterator[Broken]:
    for node in graph.nodes(QUANTISE, DEQUANTISE):
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and numpy_helper.to_array(zero).any():
            yield node.name, "a zero point that is not 0; TensorRT has none: calibrate with activations: symmetric"


def _resizes(graph: Graph) -> Iterator[Broken]:
    for node in graph.nodes("Resize"):
        if graph.pair(node.input[0]):
            yield node.name, "Q/DQ right in front of a Resize, which runs in float: put it behind"


def _extents(graph: Graph) -> Iterator[Broken]:
    values = graph.model.graph
    for value in (*values.input, *values.value_info, *values.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(extent.dim_value > 0 for extent in tensor.shape.dim):
            continue
        node = graph.maker.get(value.name)
        shape = [extent.dim_param or extent.dim_value or "?" for extent in tensor.shape.dim]
        yield (
            node.name if node else value.name,
            f"tensor {value.name!r} has extents {shape}; every one must be a number: export again with a fixed --size",
        )


def _channels(graph: Graph) -> Iterator[Broken]:
    """Scales of a convolution's weight count along its output channels, which are its axis 0."""
    for node in graph.nodes("Conv"):
        pair = graph.pair(node.input[1])
        if pair is None or pair.input[0] not in graph.constants or pair.input[1] not in graph.constants:
            continue
        weight, scales = graph.constants[pair.input[0]], graph.constants[pair.input[1]]
        axis = next((helper.get_attribute_value(found) for found in pair.attribute if found.name == "axis"), 1)
        if scales.dims and axis % len(weight.dims) != 0:
            yield (
                node.name,
                f"scales of its weight along axis {axis}; TensorRT takes those of output channels, axis 0: quantise it "
                "along axis 0, or per tensor",
            )


def _transposed(graph: Graph) -> Iterator[Broken]:
    for node in graph.nodes("ConvTranspose"):
        if any(map(graph.pair, node.input)):
            yield (
                node.name,
                "Q/DQ on a ConvTranspose, whose channel axis versions of TensorRT dispute: write it as Conv and "
                "DepthToSpace, or keep it in float",
            )


def _products(graph: Graph) -> Iterator[Broken]:
    """Both sides of CTAL's products come from bytes: with one of them, TensorRT multiplies in float."""
    for node in graph.nodes("MatMul", "Gemm"):
        if branch_of(node.name) != "ctal" or node.name in graph.kept:
            continue
        bare = [name for name in node.input[:2] if graph.pair(name) is None]
        if bare:
            yield (
                node.name,
                f"no Q/DQ on its input {', '.join(map(repr, bare))}, so this product of CTAL runs in float: calibrate "
                "both of its inputs, or keep it in float on purpose, as --max-drop does",
            )


#: Every rule: yields what breaks it.
RULES: tuple[Callable[[Graph], Iterator[Broken]], ...] = (
    _integers,
    _zero_points,
    _resizes,
    _extents,
    _channels,
    _transposed,
    _products,
    typed.operators,
    typed.mixed,
    typed.scales,
    typed.wide,
    typed.bytes_inside,
)
