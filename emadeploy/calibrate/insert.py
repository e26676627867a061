"""Q/DQ into a graph: pairs where a placement says, weights as int8, on scales from a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from emadeploy.calibrate.placement import Operand, Placement, Topology
from emadeploy.calibrate.ranges import Range, symmetric, union

#: Biases are sums of products: they stay below this much of an int32, and leave the products room.
_BIAS_ROOM = 2**30


@dataclass(frozen=True)
class Types:
    """The integers: ``activation`` 'uint8' or 'int8', ``symmetric`` or with zero points; ``largest`` of a weight.

    ``per_channel``: each output channel of a weight has its scale. ``bias``: biases as int32, which ONNX Runtime's
    kernels want and TensorRT refuses.
    """

    activation: str
    symmetric: bool
    largest: int = 127
    per_channel: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Scale:
    """value = (integer - zero_point) * scale"""

    scale: np.float32
    zero_point: npt.NDArray[np.generic]


def scale_of(values: Range, dtype: str, *, zero_centred: bool, largest: int = 127) -> Scale:
    """Return the scale on which integers cover ``values``; 1 where there is nothing to cover.

    ``zero_centred``: 0 is the middle of the type, and ``largest`` counts steps to either side.
    """
    limits = np.iinfo(dtype)
    low, high = symmetric(values) if zero_centred else values
    steps = 2 * largest if zero_centred else limits.max - limits.min
    # Smaller ones are no normal float32: an engine may take them for 0, and divide by it.
    scale = np.float32(max((high - low) / steps, np.finfo(np.float32).tiny)) if high > low else np.float32(1)
    middle = limits.min + limits.max + 1 >> 1
    zero = middle if zero_centred else np.clip(np.rint(limits.min - low / float(scale)), limits.min, limits.max)
    return Scale(scale, np.array(zero, dtype))


def insert(model: onnx.ModelProto, placement: Placement, ranges: Mapping[str, Range], types: Types) -> onnx.ModelProto:
    """Return a copy of ``model`` with Q/DQ; every tensor of the placement has a range. Weights become int8."""
    return _Insertion(model, placement, ranges, types).run()


def tensors_of(model: onnx.ModelProto, placement: Placement) -> list[str]:
    """Return the tensors whose ranges :func:`insert` needs, in a fixed order."""
    topology = Topology(model)
    return sorted({topology.nodes[name].input[index] for name, index in placement.operands} | placement.results)


def pair_source(quantise: onnx.NodeProto) -> str:
    """Return the tensor whose values a QuantizeLinear of :func:`insert` rounds."""
    return quantise.input[0].removesuffix(_PAIR_OUTPUT)


class _Insertion:
    def __init__(self, model: onnx.ModelProto, placement: Placement, ranges: Mapping[str, Range], types: Types) -> None:
        self.placement, self.types = placement, types
        self.ranges = _shared_ranges({name: ranges[name] for name in tensors_of(model, placement)}, placement)
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.topology = Topology(self.model)
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        # Nodes to put behind the maker of a tensor; '' for what belongs in front of all.
        self.behind: dict[str, list[onnx.NodeProto]] = {"": []}
        self.pairs: dict[tuple[str, bool], str] = {}

    def run(self) -> onnx.ModelProto:
        readers = {name: list(reads) for name, reads in self.topology.readers.items()}
        for tensor in sorted(self.placement.results):
            for name, index in readers.get(tensor, []):
                self.topology.nodes[name].input[index] = self._pair(tensor, tensor, False)
        for name, index in sorted(self.placement.operands):
            self._operand((name, index))
        for name in self.placement.layers:
            self._constants(self.topology.nodes[name])
        return self._finish()

    def _operand(self, operand: Operand) -> None:
        name, index = operand
        node = self.topology.nodes[name]
        # Engines multiply by a signed byte: VNNI wants it so.
        signed = node.op_type in ("MatMul", "Gemm") and index == 1
        read = node.input[index]
        tensor = read.removesuffix(_PAIR_OUTPUT)
        if tensor in self.placement.results and not signed:
            return
        node.input[index] = self._pair(tensor, read, signed)

    def _pair(self, tensor: str, source: str, signed: bool) -> str:
        """Return the float behind a pair on ``source``, which holds the values of ``tensor``."""
        types = self.types
        signed = signed and (types.activation, types.symmetric, types.largest) != ("int8", True, 127)
        if (tensor, signed) in self.pairs:
            return self.pairs[tensor, signed]
        name = self._name(tensor) + ("/signed" if signed else "")
        if signed:
            scale = scale_of(self.ranges[tensor], "int8", zero_centred=True, largest=types.largest)
        else:
            scale = scale_of(self.ranges[tensor], types.activation, zero_centred=types.symmetric)
        constants = [self._constant(f"{name}/scale", scale.scale), self._constant(f"{name}/zero", scale.zero_point)]
        output = f"{tensor}/signed{_PAIR_OUTPUT}" if signed else f"{tensor}{_PAIR_OUTPUT}"
        byte = f"{name}/QuantizeLinear_output"
        self.behind.setdefault(tensor, []).extend(
            [
                helper.make_node("QuantizeLinear", [source, *constants], [byte], name=f"{name}/QuantizeLinear"),
                helper.make_node("DequantizeLinear", [byte, *constants], [output], name=f"{name}/DequantizeLinear"),
            ]
        )
        self.pairs[tensor, signed] = output
        return output

    def _constants(self, node: onnx.NodeProto) -> None:
        """Make int8 of the weight of a layer, and int32 of its bias where asked."""
        if len(node.input) < 2 or node.input[1] not in self.weights:
            return
        weight = numpy_helper.to_array(self.weights[node.input[1]])
        axis = _channel_axis(node, weight.ndim)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        magnitude = np.abs(weight).max(axis=others) if self.types.per_channel else np.abs(weight).max()
        scales = np.asarray(magnitude / self.types.largest, np.float32)
        bias = self.weights.get(node.input[2]) if self.types.bias and len(node.input) > 2 else None
        given = self._scale_read(node)
        if bias is not None and given is not None:
            most = np.abs(numpy_helper.to_array(bias))
            scales = np.maximum(scales, (most if scales.ndim else most.max()) / (given * _BIAS_ROOM))
        scales = np.where(scales < np.finfo(np.float32).tiny, 1, scales).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)] if scales.ndim else [1] * weight.ndim
        largest = self.types.largest
        integers = np.clip(np.rint(weight / scales.reshape(shape)), -largest, largest).astype(np.int8)
        node.input[1] = self._dequantised(node.input[1], integers, scales, axis)
        if bias is not None and given is not None:
            sums = np.rint(numpy_helper.to_array(bias) / (scales.astype(np.float64) * given)).astype(np.int32)
            bias_scales = np.broadcast_to(np.float32(scales * given), sums.shape) if scales.ndim else scales * given
            node.input[2] = self._dequantised(node.input[2], sums, np.asarray(bias_scales, np.float32), 0)

    def _scale_read(self, node: onnx.NodeProto) -> float | None:
        """Return the scale of the bytes that the first input of a layer comes from."""
        tensor = node.input[0].removesuffix(_PAIR_OUTPUT)
        if tensor == node.input[0]:
            return None
        return float(scale_of(self.ranges[tensor], self.types.activation, zero_centred=self.types.symmetric).scale)

    def _dequantised(
        self, name: str, integers: npt.NDArray[np.generic], scales: npt.NDArray[np.float32], axis: int
    ) -> str:
        unused = self._unused(name)
        zero = np.zeros(scales.shape, integers.dtype)
        inputs = [
            self._constant(f"{unused}/{integers.dtype}", integers),
            self._constant(f"{unused}/scale", scales.copy()),
            self._constant(f"{unused}/zero", zero),
        ]
        attributes = {"axis": axis} if scales.ndim else {}
        node = f"{unused}/DequantizeLinear"
        self.behind[""].append(
            helper.make_node("DequantizeLinear", inputs, [f"{node}_output"], name=node, **attributes)
        )
        return f"{node}_output"

    def _unused(self, name: str) -> str:
        """Return ``name``, or one like it: a weight that two layers share may need two scales."""
        count, unused = 0, name
        while f"{unused}/scale" in self.weights:
            count += 1
            unused = f"{name}.{count}"
        return unused

    def _constant(self, name: str, array: npt.NDArray[np.generic] | np.float32) -> str:
        tensor = numpy_helper.from_array(np.asarray(array), name)
        self.weights[name] = tensor
        self.model.graph.initializer.append(tensor)
        return name

    def _name(self, tensor: str) -> str:
        """Return what nodes on ``tensor`` are called: first the layer that makes it or, of an input, reads it."""
        if tensor in self.topology.producer:
            return tensor
        first_reader = self.topology.readers[tensor][0][0]
        return f"{first_reader.rpartition('/')[0] or first_reader}/{tensor}"

    def _finish(self) -> onnx.ModelProto:
        graph = self.model.graph
        nodes = list(self.behind.pop(""))
        for tensor in [value.name for value in graph.input]:
            nodes += self.behind.pop(tensor, [])
        for node in graph.node:
            nodes.append(node)
            for tensor in node.output:
                nodes += self.behind.pop(tensor, [])
        assert not self.behind, f"no maker of {list(self.behind)}"
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        onnx.checker.check_model(self.model)
        return self.model


_PAIR_OUTPUT = "/DequantizeLinear_output"


def _shared_ranges(ranges: dict[str, Range], placement: Placement) -> dict[str, Range]:
    """Return the ranges with those of tensors that share a scale made one."""
    for group in placement.shared:
        members = [name for name in ranges if name in group]
        if len(members) > 1:
            ranges |= dict.fromkeys(members, union([ranges[name] for name in members]))
    return ranges


def _channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of the output channels of a layer's weight."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return dimensions - 1
