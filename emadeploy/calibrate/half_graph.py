"""A float32 graph as float16 sees it: the types of its tensors, its constants, and what float16 cannot hold.

A scale of Q/DQ is to be the same number in both types. An activation's that is no normal float16 stays in float32,
and so must its readers. A weight's of one channel is raised to the smallest normal one, and its integers are rounded
anew: an error of 2**-15, which is what float16 does to a weight of 1/16. Where every channel's is smaller, the layer
stays in float32.

Opset: float16 scales came with opset 19, so a graph with Q/DQ is raised to it. Between 18 and 19 the operators in
`_WIDENED` got more types and options and kept their meaning; any other that changed is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from emadeploy.calibrate.placement import MOVES
from emadeploy.contract.errors import CalibrationError, first_line

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
LARGEST = 65504.0
#: Smaller ones are no normal float16: they have fewer bits, and engines may take them for 0. They stand STEP apart.
SMALLEST, STEP = 2.0**-14, 2.0**-24
#: Largest share of its length that a constant may lose: twice what rounding takes from a value at the most.
LOSS = 2.0**-10
#: Opset of the first Q/DQ with float16, and the operators that changed in it without another meaning.
OPSET = 19
_WIDENED = {
    *("AveragePool", "Cast", "CastLike", "Constant", "DequantizeLinear", "Equal", "Identity", "Pad"),
    *("QuantizeLinear", "Reshape", "Resize", "Shape", "Size"),
}
QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
#: Of values that float16 holds they make values that it holds, and none that is larger.
EXACT = (*MOVES, "Relu", "MaxPool", "Identity")
#: Their results have the type that an attribute says; they are small, and stay in float32.
_TYPED_BY_ATTRIBUTE = (
    *("Bernoulli", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    "RandomUniformLike",
)


def unfit(model: onnx.ModelProto) -> dict[str, str]:
    """Return the nodes that cannot be in float16, and why, from the graph alone.

    Operators without float16; constants beyond its range or infinite, or that lose more than LOSS of their length, as
    an epsilon of 1e-12 that would become 0; readers of bytes whose scale is no normal float16. Raises
    CalibrationError.
    """
    return FloatGraph(model).unfit()


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with the type and shape of every tensor; raises CalibrationError where they do not fit."""
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise CalibrationError(f"the types or shapes of the graph do not fit together: {first_line(error)}") from None


def scale_fits(scale: npt.NDArray[np.floating]) -> bool:
    """Whether all of a scale are normal in float16."""
    return bool((scale >= SMALLEST).all() and (scale <= LARGEST).all())


class FloatGraph:
    """A copy of ``model`` with its constants as initialisers, its scales numbers of float16, and who makes what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        if any(a.type in (a.GRAPH, a.GRAPHS) for node in model.graph.node for a in node.attribute):
            raise CalibrationError("the graph has subgraphs (If, Loop, Scan): float16 is for graphs without")
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        _hoist(self.model.graph)
        self.opset = _raised(self.model)
        graph = with_types(self.model).graph
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.shapes = {value.name: tuple(e.dim_value for e in value.type.tensor_type.shape.dim) for value in values}
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        if HALF in self.types.values():
            raise CalibrationError("the graph has float16 tensors already; give the one in float32")
        self.pairs = {node.output[0]: node for node in self.model.graph.node if node.op_type == DEQUANTISE}
        for node in self.model.graph.node:
            if node.op_type in (QUANTISE, DEQUANTISE):
                self._settle(node)

    def array(self, name: str) -> npt.NDArray[np.generic]:
        """Return a constant."""
        return numpy_helper.to_array(self.constants[name])

    def takes_half(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether input ``index`` of ``node`` is a float that may be float16: the scales of a Resize may not."""
        name = node.input[index]
        return self.types.get(name) == FLOAT and "tensor(float16)" in _allowed(node, self.opset, index, False)

    def unfit(self) -> dict[str, str]:
        """As :func:`unfit`."""
        found: dict[str, str] = {}
        for node in self.model.graph.node:
            why = next(self._misfits(node), None)
            if why and node.op_type not in (QUANTISE, DEQUANTISE):
                found[node.name] = why
        return found

    def _misfits(self, node: onnx.NodeProto) -> Iterator[str]:
        results = [i for i, name in enumerate(node.output) if self.types.get(name) == FLOAT]
        if results and node.op_type in _TYPED_BY_ATTRIBUTE:
            yield f"{node.op_type} has the type that its attribute says"
        if any("tensor(float16)" not in _allowed(node, self.opset, index, True) for index in results):
            yield f"{node.op_type} has no float16"
        for index, name in enumerate(node.input):
            if not self.takes_half(node, index):
                continue
            if name in self.constants:
                yield from _loses(np.asarray(self.array(name), np.float64), name)
            elif name in self.pairs:
                scale = np.asarray(self.array(self.pairs[name].input[1]), np.float64)
                if not scale_fits(scale):
                    yield f"its bytes {name!r} have scales from {scale.min():.2g}; float16's start at {SMALLEST:.2g}"

    def _settle(self, node: onnx.NodeProto) -> None:
        """Make the scale of a pair, where float16 can hold it, a number that it holds."""
        if node.input[1] not in self.constants:
            raise CalibrationError(f"node {node.name!r}: its scale is computed; expected a constant")
        scale = np.asarray(self.array(node.input[1]), np.float32)
        if node.input[0] in self.constants and scale.max() >= SMALLEST:
            raised = np.maximum(scale, np.float32(SMALLEST))
            if (raised != scale).any():
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                integers = self.array(node.input[0])
                shape = [-1 if i == axis % integers.ndim else 1 for i in range(integers.ndim)] if scale.ndim else []
                again = np.rint(integers * (scale.astype(np.float64) / raised).reshape(shape))
                self._replace(node.input[0], again.astype(integers.dtype))
            scale = raised
        if scale_fits(scale):
            self._replace(node.input[1], scale.astype(np.float16).astype(np.float32))

    def _replace(self, name: str, array: npt.NDArray[np.generic]) -> None:
        self.constants[name].CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def _loses(constant: npt.NDArray[np.float64], name: str) -> Iterator[str]:
    """Yield why float16 cannot hold a constant."""
    if not np.isfinite(constant).all():
        yield f"its constant {name!r} is not finite"
        return
    largest = float(np.abs(constant).max(initial=0.0))
    if largest > LARGEST:
        yield f"its constant {name!r} reaches {largest:.3g}, beyond {LARGEST:.0f}"
        return
    length = float(np.linalg.norm(constant))
    lost = float(np.linalg.norm(constant - constant.astype(np.float16)))
    if lost > LOSS * length:
        yield f"its constant {name!r} loses {100 * lost / length:.2g} % in float16 (values up to {largest:.2g})"


def _hoist(graph: onnx.GraphProto) -> None:
    """Make initialisers of Constant nodes that hold a tensor."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _raised(model: onnx.ModelProto) -> int:
    """Raise a graph with Q/DQ to OPSET; return its opset."""
    [entry] = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    version = int(entry.version)
    types = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    if version >= OPSET or not types & {QUANTISE, DEQUANTISE}:
        return version
    for type_ in sorted(types - _WIDENED):
        if onnx.defs.get_schema(type_, OPSET).since_version > version:
            raise CalibrationError(f"{type_} of opset {version} may mean something else in {OPSET}: export again")
    entry.version = OPSET
    return OPSET


def _allowed(node: onnx.NodeProto, opset: int, index: int, output: bool) -> frozenset[str]:
    return _schema_types(node.op_type, node.domain, opset, index, output)


@cache
def _schema_types(op_type: str, domain: str, opset: int, index: int, output: bool) -> frozenset[str]:
    schema = onnx.defs.get_schema(op_type, opset, domain)
    formals = schema.outputs if output else schema.inputs
    return frozenset(formals[min(index, len(formals) - 1)].types)
