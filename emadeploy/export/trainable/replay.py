"""A graph with Q/DQ, run by PyTorch: the same nodes in the same order, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from emadeploy.export.trainable.ops import OPS, Node


@dataclass(frozen=True)
class Layer:
    """A convolution: its node, and how its weight and its bias are rounded.

    ``reads``: the QuantizeLinear whose integers it reads; ``None``: it runs in float. ``rounds_bias``: whether its bias
    is int32.
    """

    node: Node
    reads: str | None
    per_channel: bool = False
    rounds_bias: bool = False

    @property
    def path(self) -> str:
        """The path of the layer in the network."""
        return self.node.name.rpartition("/")[0]


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear: its scale, zero point, and the ends of its integers.

    ``signed``: it is one more pair on a tensor, for the side of a product that takes signed bytes.
    """

    name: str
    signed: bool
    scale: float
    zero: int
    lowest: int
    highest: int


class Replay:
    """The graph ``model``, which takes one image.

    ``pairs`` and ``layers`` by the name of their node. ``constants``: what else it reads, float32, by name. Raises
    ExportError for a node that is not known, before anything runs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        [self.input] = [value.name for value in graph.input]
        self.nodes: list[Node] = []
        self.pairs: dict[str, Pair] = {}
        self.layers: dict[str, Layer] = {}
        weights: dict[str, Node] = {}
        made_by: dict[str, str] = {}
        for proto in graph.node:
            node = Node.of(proto, arrays)
            if node.op_type == "DequantizeLinear" and node.inputs[0] in arrays:
                weights[node.outputs[0]] = node
                arrays[node.outputs[0]] = _dequantised(node, arrays)
                continue
            self.nodes.append(node)
            if node.op_type == "QuantizeLinear":
                self.pairs[node.name] = _pair(node, arrays)
                made_by[node.outputs[0]] = node.name
            elif node.op_type == "DequantizeLinear":
                made_by[node.outputs[0]] = made_by[node.inputs[0]]
            elif node.op_type == "Conv" and node.inputs[1] in weights:
                per_channel = arrays[weights[node.inputs[1]].inputs[1]].ndim > 0
                rounds_bias = len(node.inputs) > 2 and node.inputs[2] in weights
                self.layers[node.name] = Layer(node, made_by[node.inputs[0]], per_channel, rounds_bias)
            elif node.op_type == "Conv" and node.inputs[1] in arrays:
                self.layers[node.name] = Layer(node, None)
            elif node.op_type not in OPS:
                raise node.refused(f"what {node.op_type} computes is not known here, {', '.join(OPS)} are")
        read = {name for node in self.nodes if node.name not in self.layers for name in node.inputs}
        self.constants = {name: array for name, array in arrays.items() if name in read and array.dtype.kind == "f"}
        self._done = _last_readers(self.nodes, self.outputs)

    def run(
        self,
        image_13HW: Tensor,
        constants: Mapping[str, Tensor],
        layers: Mapping[str, Sequence[Tensor]],
        round_pair: Callable[[str, Tensor], Tensor],
    ) -> list[Tensor]:
        """Return the graph's answers.

        ``constants`` by name; ``layers``: weight and bias of each convolution, by the name of its node. ``round_pair``
        is called with the name of each QuantizeLinear and what it rounds.
        """
        values: dict[str, Any] = {self.input: image_13HW, "": None}
        for node, done in zip(self.nodes, self._done, strict=True):
            if node.op_type == "QuantizeLinear":
                values[node.outputs[0]] = round_pair(node.name, values[node.inputs[0]])
            elif node.op_type == "DequantizeLinear":
                values[node.outputs[0]] = values[node.inputs[0]]
            else:
                given = [values[name] if name in values else constants.get(name) for name in node.inputs]
                if node.name in layers:
                    given = [given[0], *layers[node.name]]
                results = OPS[node.op_type](node, *given)
                values.update(zip(node.outputs, [results] if torch.is_tensor(results) else results, strict=True))
            for name in done:
                values.pop(name, None)
        return [values[name] for name in self.outputs]


def _pair(node: Node, arrays: Mapping[str, npt.NDArray[Any]]) -> Pair:
    scale, zero = (arrays[name] for name in node.inputs[1:3])
    limits = torch.iinfo(getattr(torch, str(zero.dtype)))
    return Pair(node.name, "/signed/" in node.name, float(scale), int(zero), limits.min, limits.max)


def _dequantised(node: Node, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    integers, scale = (arrays[name] for name in node.inputs[:2])
    if scale.ndim:
        shape = [1] * integers.ndim
        shape[node.attributes.get("axis", 1)] = -1
        scale = scale.reshape(shape)
    result: npt.NDArray[Any] = integers.astype("float32") * scale
    return result


def _last_readers(nodes: Sequence[Node], outputs: Sequence[str]) -> list[list[str]]:
    """Return, node by node, the tensors that nothing reads after it: what is not let go is held to the end."""
    seen, done = set(outputs), []
    for node in reversed(nodes):
        done.append([name for name in dict.fromkeys(node.inputs) if name and name not in seen])
        seen.update(node.inputs)
    return done[::-1]
