"""Products of bytes as an engine computes them: summed in integers, by the kernels that ONNX Runtime has for them.

A typed graph says that a product reads what Q/DQ make of bytes. TensorRT multiplies the bytes themselves, adds up in 32
bits, and writes bytes where a QuantizeLinear follows: nothing is float16 in between. `in_integers` writes the stand-in
of a typed graph so that ONNX Runtime does the same, in kernels that are much faster than those for floats:

- The Casts that stand for float16 around a product of bytes go.
- A bias becomes an integer in steps of the sums: far finer than the steps of the answer.
- Cutting off at 0 comes behind QuantizeLinear, on bytes. Rounding keeps order and 0 stays 0: the same bytes come out.
- Bytes from -128 to 127 become bytes from 0 to 255 with their zero in the middle: the same numbers, for which x86 has
  instructions. Without VNNI their sums of pairs would overflow, so that this is for CPUs that have it (`sums_bytes`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from emadeploy.calibrate.half_graph import DEQUANTISE, QUANTISE, with_types

_MIDDLE, _TOP = "bytes/middle", "bytes/top"
_PRODUCTS = ("Conv", "MatMul")


def in_integers(rounded: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``rounded``, as `half_rounding.rounded` makes it, with its products of bytes in integers."""
    model = onnx.ModelProto()
    model.CopyFrom(rounded)
    graph = _Graph(model)
    for node in list(model.graph.node):
        if node.op_type in _PRODUCTS and all(pairs := [graph.pair(name) for name in node.input[:2]]):
            for index, pair in enumerate(pairs):
                node.input[index] = pair.output[0]
            if node.op_type == "Conv":
                graph.answer_in_bytes(node, *pairs)
    graph.finish()
    _Graph(model).shift()
    del model.graph.value_info[:]
    return with_types(model)


class _Graph:
    """A graph that is rewritten in place: who makes and who reads each tensor, and what comes and goes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.answers = {value.name for value in self.graph.output}
        self._gone: set[str] = set()
        self._before: dict[str, onnx.NodeProto] = {}
        self._behind: dict[str, onnx.NodeProto] = {}

    def pair(self, name: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that ``name`` comes from, through Casts alone."""
        node = self.maker.get(name)
        while node is not None and node.op_type == "Cast":
            node = self.maker.get(node.input[0])
        return node if node is not None and node.op_type == DEQUANTISE else None

    def answer_in_bytes(self, conv: onnx.NodeProto, given: onnx.NodeProto, weight: onnx.NodeProto) -> None:
        """Have ``conv`` answer the bytes that a QuantizeLinear makes of its result, where nothing else reads that."""
        path = [conv]
        while path[-1].op_type != QUANTISE:
            [name] = path[-1].output
            readers = self.readers.get(name, [])
            if name in self.answers or len(readers) != 1 or readers[0].op_type not in ("Cast", "Relu", QUANTISE):
                return
            path.append(readers[0])
        between, quantise = path[1:-1], path[-1]
        if len(conv.input) > 2:
            self._bias(conv, given, weight)
        self._gone |= {node.name for node in between}
        quantise.input[0] = conv.output[0]
        if any(node.op_type == "Relu" for node in between):
            [result] = quantise.output
            quantise.output[0] = f"{result}/signed"
            self._constant("bytes/zero", np.array(0, np.int8))
            self._constant("bytes/largest", np.array(127, np.int8))
            given_to = [quantise.output[0], "bytes/zero", "bytes/largest"]
            self._behind[quantise.name] = helper.make_node("Clip", given_to, [result], name=f"{quantise.name}/cut")

    def shift(self) -> None:
        """Have bytes count from 0 to 255 where no product reads them as its second factor, which is to be signed."""
        for node in self.graph.node:
            if node.op_type != QUANTISE or node.input[0] in self.constants:
                continue
            readers, cut = self.readers[node.output[0]], None
            if [reader.op_type for reader in readers] == ["Clip"]:
                cut = readers[0]
                readers = self.readers[cut.output[0]]
            if all(reader.op_type == DEQUANTISE and not self._is_second(reader) for reader in readers):
                self._constant(_MIDDLE, np.array(128, np.uint8))
                self._constant(_TOP, np.array(255, np.uint8))
                for pair in (node, *readers):
                    pair.input[2] = _MIDDLE
                if cut is not None:
                    cut.input[1:] = [_MIDDLE, _TOP]

    def finish(self) -> None:
        """Write the nodes anew, without those that are gone and those that nothing reads any more."""
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            if node.name in self._gone:
                continue
            around = (self._before.get(node.name), node, self._behind.get(node.name))
            nodes += [_copy(one) for one in around if one is not None]
        while len(kept := list(_read(nodes, self.answers))) < len(nodes):
            nodes = kept
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _bias(self, conv: onnx.NodeProto, given: onnx.NodeProto, weight: onnx.NodeProto) -> None:
        step = self._array(given.input[1]).astype(np.float64) * self._array(weight.input[1]).astype(np.float64)
        limits = np.iinfo(np.int32)
        bias = np.clip(np.rint(self._array(conv.input[2]) / step), limits.min, limits.max).astype(np.int32)
        name = f"{conv.name}/bias"
        self._constant(f"{name}/integers", bias)
        self._constant(f"{name}/scale", step.astype(np.float32))
        self._constant(f"{name}/zero", np.zeros(step.shape, np.int32))
        axis = {"axis": 0} if step.ndim else {}
        parts = [f"{name}/integers", f"{name}/scale", f"{name}/zero"]
        self._before[conv.name] = helper.make_node(DEQUANTISE, parts, [name], name=f"{name}/{DEQUANTISE}", **axis)
        conv.input[2] = name

    def _is_second(self, pair: onnx.NodeProto) -> bool:
        [name] = pair.output
        return any(node.op_type == "MatMul" and node.input[1] == name for node in self.readers.get(name, ()))

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _constant(self, name: str, values: np.ndarray) -> None:
        if name not in self.constants:
            self.graph.initializer.append(numpy_helper.from_array(values, name))
            self.constants[name] = self.graph.initializer[-1]


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    # Nodes that are still part of the graph vanish when its list is cleared.
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _read(nodes: list[onnx.NodeProto], answers: set[str]) -> Iterable[onnx.NodeProto]:
    wanted = answers | {name for node in nodes for name in node.input}
    return (node for node in nodes if wanted.intersection(node.output))
