"""From a float32 graph, with or without Q/DQ, to a *strongly typed* one in float16: every tensor says its own type.

TensorRT 11, and 10 when asked to, computes each node in the types that the graph gives it, and takes no node whose
float inputs differ in type. So weights and results become float16, the nodes that are kept stay in float32, and Casts
stand at the borders alone, one per tensor. Inputs and answers of the graph keep their types: float32, or bytes.

- Nodes that only move values (`placement.MOVES`) go with what they read: a Cast comes behind them.
- QuantizeLinear and DequantizeLinear have a scale of the type of their float side. A DequantizeLinear is written once
  for each type that its readers want, so that no Cast parts it from them: engines look for it right in front of a
  product.
- What float16 cannot hold is refused, never rounded away: see `half_graph`.

Graphs with Q/DQ have opset 19, the first whose Q/DQ takes float16 (onnx 1.14); others stay at theirs. What is known
of TensorRT's parser: 8.5 and 8.6 say that they read up to 17 (`lowered`), though the onnx inside 8.6 (1.13) knows 18;
that of 9.0 is 1.14, which knows 19, and the parser of 10.3 is younger; 10.15 says 9 to 24, 11 says up to 25. 8.6 has no
Q/DQ of float16: so the documentation inside its Python module says (IQuantizeLayer, IDequantizeLayer), and its parser
takes the bytes of every scale for float32. What it must not be given, `runtime.trt.compiling` refuses.

Why not a converter that exists: those of onnxruntime.transformers and onnxconverter-common put Casts around each node
that is kept, clamp what does not fit and go on (an epsilon of 1e-12 becomes 6e-8, a mask of -1e9 becomes -65504), and
know no Q/DQ. NVIDIA's modelopt knows Q/DQ; it brings torch with it, and chooses nodes by their magnitudes, not by the
harm to a task.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from emadeploy.calibrate.half_graph import DEQUANTISE, FLOAT, HALF, QUANTISE, FloatGraph, scale_fits, with_types
from emadeploy.calibrate.placement import MOVES
from emadeploy.contract.errors import CalibrationError

_NAMES = {FLOAT: "float", HALF: "half"}


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return ``model`` in float16 but for the nodes ``keep``, strongly typed, with every tensor's type and shape.

    Raises CalibrationError for a node to keep that is not there, one that is `unfit` and not kept, subgraphs, and an
    operator of which opset 19 thinks otherwise.
    """
    graph = FloatGraph(model)
    unknown = sorted(set(keep) - {node.name for node in graph.model.graph.node})
    if unknown:
        raise CalibrationError(f"cannot keep {', '.join(map(repr, unknown))} in float32: no node of the graph")
    left = {node: why for node, why in graph.unfit().items() if node not in keep}
    if left:
        node, why = next(iter(left.items()))
        more = f" ({len(left) - 1} more)" if len(left) > 1 else ""
        raise CalibrationError(f"node {node!r} cannot be in float16: {why}{more}; keep it in float32")
    return _Conversion(graph, keep).run()


class _Conversion:
    """The nodes of ``graph`` written anew, in order, each reading its floats in its own type."""

    def __init__(self, graph: FloatGraph, keep: Collection[str]) -> None:
        self.graph, self.keep = graph, keep
        self.answers = {value.name for value in graph.model.graph.output}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, int] = {value.name: FLOAT for value in graph.model.graph.input}
        #: Tensor and type -> its name in the new graph.
        self.named: dict[tuple[str, int], str] = {(name, FLOAT): name for name in self.made}
        self.halves: dict[str, onnx.TensorProto] = {}
        #: The node that makes a tensor or, of an input, reads it first: its Cast is named after it.
        self.at = {name: node for node in reversed(graph.model.graph.node) for name in node.input}
        self.at |= {name: node for node in graph.model.graph.node for name in node.output}

    def run(self) -> onnx.ModelProto:
        for node in self.graph.model.graph.node:
            if node.op_type != DEQUANTISE:
                self._write(node)
        for value in self.graph.model.graph.output:
            if self.graph.types[value.name] == FLOAT:
                self._read(value.name, FLOAT)
        return self._finish()

    def _type(self, node: onnx.NodeProto) -> int:
        """Return the type that ``node`` computes in."""
        if node.name in self.keep:
            return FLOAT
        reads = {
            self.made.get(name, HALF)
            for index, name in enumerate(node.input)
            if self.graph.takes_half(node, index) and name not in self.graph.constants
        }
        if node.op_type == QUANTISE:
            fits = scale_fits(np.asarray(self.graph.array(node.input[1]), np.float64))
            return FLOAT if reads == {FLOAT} or not fits else HALF
        return FLOAT if node.op_type in MOVES and reads == {FLOAT} else HALF

    def _write(self, node: onnx.NodeProto) -> None:
        type_ = self._type(node)
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for index, name in enumerate(node.input):
            if self.graph.types.get(name) == FLOAT:
                new.input[index] = self._read(name, type_ if self.graph.takes_half(node, index) else FLOAT)
        for index, name in enumerate(node.output):
            if self.graph.types.get(name) != FLOAT:
                continue
            self.made[name] = type_
            # Answers stay in float32, under their names.
            new.output[index] = f"{name}/half" if type_ == HALF and name in self.answers else name
            self.named[name, type_] = new.output[index]
            for attribute in new.attribute:
                if node.op_type == "Cast" and attribute.name == "to":
                    attribute.i = type_
        self.nodes.append(new)

    def _read(self, name: str, type_: int) -> str:
        """Return what ``name`` is called in ``type_``; its Cast, constant or pair is written at the first reading."""
        if (name, type_) in self.named:
            return self.named[name, type_]
        if name in self.graph.constants:
            new = name if type_ == FLOAT else self._half_constant(name)
        elif name in self.graph.pairs:
            new = self._pair(self.graph.pairs[name], type_)
        else:
            source = self.named[name, self.made[name]]
            new = name if name in self.answers and type_ == FLOAT else f"{name}/{_NAMES[type_]}"
            node = self.at.get(name)
            called = f"{node.name if node else name}/Cast_{_NAMES[type_]}"
            self.nodes.append(helper.make_node("Cast", [source], [new], name=called, to=type_))
        self.named[name, type_] = new
        return new

    def _half_constant(self, name: str) -> str:
        new = f"{name}/half"
        half = np.asarray(self.graph.array(name)).astype(np.float16)
        self.halves[new] = numpy_helper.from_array(np.asarray(half), new)
        return new

    def _pair(self, node: onnx.NodeProto, type_: int) -> str:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.input[1] = self._read(node.input[1], type_)
        if (node.output[0], FLOAT if type_ == HALF else HALF) in self.named:
            new.name, new.output[0] = f"{node.name}/{_NAMES[type_]}", f"{node.output[0]}/{_NAMES[type_]}"
        self.nodes.append(new)
        return str(new.output[0])

    def _finish(self) -> onnx.ModelProto:
        model = self.graph.model
        graph = model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in (*graph.initializer, *self.halves.values()) if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        typed = with_types(model)
        onnx.checker.check_model(typed)
        return typed
