"""The operations that exported networks are made of, in PyTorch: each takes its node and its tensors.

What a node reads as a number, not as a value (axes, shapes, ends), must be a constant of the graph; it is looked up
before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from emadeploy.contract.errors import ExportError


@dataclass(frozen=True)
class Node:
    """A node of a graph: its ``inputs`` and ``outputs`` by name, attributes, and constant inputs as lists by place."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, node: onnx.NodeProto, constants: Mapping[str, Any]) -> Node:
        """Return the node; ``constants`` are the graph's, as arrays by name. Only those of a few entries are lists."""
        return cls(
            node.name,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute},
            {
                index: constants[name].reshape(-1).tolist()
                for index, name in enumerate(node.input)
                if name in constants and constants[name].size <= _FEW
            },
        )

    def ints(self, index: int) -> list[int]:
        """Return the whole numbers of the constant input ``index``; raises ExportError where it is none."""
        if index not in self.constants:
            raise self.refused(f"its input {index} is no constant")
        return [int(value) for value in self.constants[index]]

    def word(self, attribute: str, default: str) -> str:
        """Return an attribute that is a word."""
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def refused(self, why: str) -> ExportError:
        """Return the error that says that this node cannot be trained, and why."""
        return ExportError(
            f"node {self.name!r} ({self.op_type}) cannot be fine-tuned with --qat: {why}; export this network with "
            "calibrated int8 alone"
        )


#: Axes, shapes and ends have no more entries.
_FEW = 16


def _conv(node: Node, feat: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        feat, top, left = functional.pad(feat, (left, right, top, bottom)), 0, 0
    strides, dilations = (tuple(node.attributes.get(key, (1, 1))) for key in ("strides", "dilations"))
    return functional.conv2d(feat, weight, bias, strides, (top, left), dilations, node.attributes.get("group", 1))


def _resize(node: Node, feat: Tensor, *rest: Any) -> Tensor:
    kind = node.word("mode", "nearest"), node.word("coordinate_transformation_mode", "half_pixel")
    if kind != ("linear", "half_pixel"):
        raise node.refused(f"of its modes bilinear with half pixels is known, it has {kind[0]}, {kind[1]}")
    return functional.interpolate(feat, size=tuple(node.ints(3)[2:]), mode="bilinear", align_corners=False)


def _slice(node: Node, data: Tensor, *rest: Any) -> Tensor:
    starts, ends = node.ints(1), node.ints(2)
    axes = node.ints(3) if len(node.inputs) > 3 else list(range(len(starts)))
    steps = node.ints(4) if len(node.inputs) > 4 else [1] * len(starts)
    index = [slice(None)] * data.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise node.refused(f"it steps backwards ({step})")
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _pad(node: Node, data: Tensor, *rest: Any) -> Tensor:
    if node.word("mode", "constant") != "constant" or any(node.constants.get(2, [0])):
        raise node.refused("it pads with something else than zeros")
    pads = node.ints(1)
    pairs = list(zip(pads[: data.dim()], pads[data.dim() :], strict=True))
    return functional.pad(data, [end for pair in reversed(pairs) for end in pair])


def _split(node: Node, data: Tensor, *rest: Any) -> Sequence[Tensor]:
    axis = node.attributes.get("axis", 0)
    if len(node.inputs) > 1:
        return data.split(node.ints(1), axis)
    return data.chunk(len(node.outputs), axis)


def _depth_to_space(node: Node, data: Tensor) -> Tensor:
    size, mode = node.attributes["blocksize"], node.word("mode", "DCR")
    B, C, H, W = data.shape
    if mode == "CRD":
        return functional.pixel_shuffle(data, size)
    blocks = data.reshape(B, size, size, C // size**2, H, W)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(B, C // size**2, H * size, W * size)


def _clip(node: Node, data: Tensor, *ends: Tensor | None) -> Tensor:
    least, most = (*ends, None, None)[:2]
    return torch.clamp(data, least, most)


def _reduce(reduction: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(node: Node, data: Tensor, *rest: Any) -> Tensor:
        return reduction(data, dim=tuple(node.ints(1)), keepdim=bool(node.attributes.get("keepdims", 1)))

    return reduced


def _reshape(node: Node, data: Tensor, *rest: Any) -> Tensor:
    sizes = node.ints(1)
    if not node.attributes.get("allowzero", 0):
        sizes = [size or data.shape[axis] for axis, size in enumerate(sizes)]
    return data.reshape(sizes)


#: Kind of node -> what it computes.
OPS: dict[str, Callable[..., Any]] = {
    "Add": lambda node, left, right: left + right,
    "Clip": _clip,
    "Concat": lambda node, *parts: torch.cat(parts, node.attributes["axis"]),
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Div": lambda node, left, right: left / right,
    "MatMul": lambda node, left, right: left @ right,
    "Mul": lambda node, left, right: left * right,
    "Pad": _pad,
    "Reciprocal": lambda node, data: data.reciprocal(),
    "ReduceL2": _reduce(torch.linalg.vector_norm),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda node, data: functional.relu(data),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda node, data: data.sigmoid(),
    "Slice": _slice,
    "Split": _split,
    "Sub": lambda node, left, right: left - right,
    "Transpose": lambda node, data: data.permute(node.attributes["perm"]),
}
