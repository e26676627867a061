"""A graph as it is looked at here, whatever file it came from: nodes in order, extents and type of each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Type of a tensor -> bytes of a value.
WIDTHS = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4, "int32": 4, "int64": 8, "bool": 1}


@dataclass(frozen=True)
class Tensor:
    """Extents, all of them fixed, and the type: a key of WIDTHS, where 'int8' is any type of one byte."""

    shape: tuple[int, ...]
    type: str

    @property
    def elements(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    def bytes_as(self, type_: str) -> int:
        """Return the bytes that it takes when it is kept in ``type_``."""
        return self.elements * WIDTHS[type_]


@dataclass(frozen=True)
class Node:
    """An operation, by ONNX's name for it.

    ``group``: of a convolution. ``transposed``: whether the left side of a product is.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    group: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Net:
    """``nodes`` in an order in which they can run; ``constants``: tensors that do not depend on the ``inputs``."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: frozenset[str] = field(default_factory=frozenset)


#: Operations that round to bytes.
TO_BYTES = ("QuantizeLinear", "FakeQuantize")


def folded(op: str, tensors: Mapping[str, Tensor], operands: Sequence[str], result: str) -> Tensor:
    """Return the constant ``result`` as an engine keeps it: what is rounded to bytes, and bytes with a scale, as bytes.

    ``op`` works it out from the constants ``operands``, of which there is at least one.
    """
    tensor = tensors[result]
    largest = max((tensors[name] for name in operands), key=lambda operand: operand.elements)
    bytes_ = op in TO_BYTES or (largest.elements == tensor.elements and largest.type == "int8")
    return Tensor(tensor.shape, "int8") if bytes_ else tensor
