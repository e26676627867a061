"""Where Q/DQ stands: the rules of each engine, from the graph alone.

A pair of QuantizeLinear and DequantizeLinear says "here the value is a byte". An engine runs a layer in int8 where the
pairs around it let it, and in float where one is missing; so a rule says on which side of which node a pair stands.

- an *operand* is one input of one node; its other readers keep the float;
- a *result* is a tensor that all of its readers get as a byte, so that the node that makes it can make bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import onnx

from emadeploy.contract.errors import CalibrationError

COMPUTE = ("Conv", "Gemm", "MatMul")
#: They move values and make none: bytes go through, on the scale they came with.
MOVES = ("Reshape", "Transpose", "DepthToSpace", "Slice", "Split", "Concat", "Pad", "Squeeze", "Unsqueeze", "Flatten")
#: They stay between the least and the greatest of what they read.
_BETWEEN = ("Resize", "MaxPool")

#: Name of a node, number of its input.
Operand = tuple[str, int]


@dataclass(frozen=True)
class Placement:
    """Where pairs stand. ``layers``: the nodes that run in int8; ``float_layers``: the other products, in order.

    ``shared``: sets of tensors that have one scale.
    """

    layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    operands: frozenset[Operand]
    results: frozenset[str] = frozenset()
    shared: tuple[frozenset[str], ...] = ()


@dataclass
class Topology:
    """Who makes and who reads each tensor of ``model``."""

    model: onnx.ModelProto
    constants: set[str] = field(init=False)
    outputs: set[str] = field(init=False)
    nodes: dict[str, onnx.NodeProto] = field(init=False)
    producer: dict[str, onnx.NodeProto] = field(init=False)
    readers: dict[str, list[Operand]] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.constants = {tensor.name for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.nodes = {node.name: node for node in graph.node}
        self.producer = {result: node for node in graph.node for result in node.output}
        self.readers = {}
        for node in graph.node:
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node.name, index))

    def values(self, node: onnx.NodeProto) -> list[tuple[int, str]]:
        """Return the inputs that are no constants: number and tensor."""
        return [(index, name) for index, name in enumerate(node.input) if name and name not in self.constants]

    def is_only_for(self, tensor: str, op_type: str) -> bool:
        """Whether one node of that type, and nothing else, reads the tensor."""
        readers = self.readers.get(tensor, [])
        return len(readers) == 1 and tensor not in self.outputs and self.nodes[readers[0][0]].op_type == op_type

    def layers(self, keep: Collection[str]) -> list[onnx.NodeProto]:
        """Return the products of the graph but those to ``keep``; raises CalibrationError for an unknown name."""
        products = {node.name: node for node in self.nodes.values() if node.op_type in COMPUTE}
        unknown = sorted(set(keep) - set(products))
        if unknown:
            raise CalibrationError(
                f"cannot keep {', '.join(map(repr, unknown))} in higher precision: no Conv, Gemm or MatMul of the "
                f"graph, such as {', '.join(map(repr, list(products)[:2]))}"
            )
        return [node for name, node in products.items() if name not in keep]


def place_for_tensorrt(model: onnx.ModelProto, keep: Collection[str] = ()) -> Placement:
    """Return TensorRT's placement: the inputs of products, and of each sum the branch that does not fuse into one.

    TensorRT runs convolution, sum and ReLU as one kernel, which adds a second operand in int8: that one gets a pair; a
    pair on the branch of the convolution would part them. Nothing stands in front of a Resize, which runs in float.
    """
    topology = Topology(model)
    layers = topology.layers(keep)
    names = {node.name for node in layers}
    operands = {(node.name, index) for node in layers for index, _ in _operands(topology, node)}
    for node in topology.nodes.values():
        if node.op_type == "Add":
            operands.update(_residual(topology, node, names))
    return _placement(topology, names, operands, set())


def place_for_onnxruntime(model: onnx.ModelProto, keep: Collection[str] = (), *, symmetric: bool = False) -> Placement:
    """Return ONNX Runtime's placement: inputs *and* results of products, for its kernels make bytes of bytes.

    - A ReLU between is dropped by the engine where 0 is the lowest byte: the pair stands behind it. Not so where
      ranges are ``symmetric``: then it stands before.
    - Sums and moves between bytes stay in bytes, where a product reads what comes of them.
    - A layer whose result is an answer stays in float: 256 levels are too few for a depth.
    """
    topology = Topology(model)
    last = _answering(topology)
    layers = [node for node in topology.layers(keep) if node.name not in last]
    operands = {(node.name, index) for node in layers for index, _ in _operands(topology, node)}
    names = {node.name for node in layers}

    def end(tensor: str) -> str:
        moved = topology.producer[tensor].op_type in (*MOVES, *_BETWEEN)
        if symmetric or moved or not topology.is_only_for(tensor, "Relu"):
            return tensor
        return topology.nodes[topology.readers[tensor][0][0]].output[0]

    through = ("Add", *MOVES, *_BETWEEN)
    wanted = _wanted(topology, operands)
    bytes_: set[str] = {topology.nodes[name].input[index] for name, index in operands}
    results: set[str] = set()
    for node in topology.nodes.values():
        ends = {end(result) for result in node.output}
        values = topology.values(node)
        if node.name in names:
            results |= ends
        elif node.op_type in through and ends & wanted and values and all(name in bytes_ for _, name in values):
            operands.update((node.name, index) for index, _ in values)
            results |= ends
        bytes_ |= results & ends
    return _placement(topology, names, operands, results - topology.outputs)


def _operands(topology: Topology, node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    """Yield the inputs of a product that it multiplies, and that are no constants."""
    return ((index, name) for index, name in topology.values(node) if index < 2)


def _residual(topology: Topology, node: onnx.NodeProto, layers: set[str]) -> Iterator[Operand]:
    """Yield the operand of the sum ``node`` that does not fuse, where the other one does."""
    values = topology.values(node)
    fusing = [
        index
        for index, name in values
        if name in topology.producer
        and topology.producer[name].op_type == "Conv"
        and topology.producer[name].name in layers
        and topology.is_only_for(name, "Add")
    ]
    # Where both branches end in a convolution, the kernel is the first one's.
    return ((node.name, index) for index, _ in values if fusing and len(values) == 2 and index != fusing[0])


def _answering(topology: Topology) -> set[str]:
    """Return the products whose results become answers without another product between."""
    found, seen, todo = set(), set(), list(topology.outputs)
    while todo:
        node = topology.producer.get(todo.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in COMPUTE:
            found.add(node.name)
        else:
            todo.extend(name for _, name in topology.values(node))
    return found


def _wanted(topology: Topology, operands: set[Operand]) -> set[str]:
    """Return the tensors from which products read, through sums and moves alone."""
    wanted = {topology.nodes[name].input[index] for name, index in operands}
    for node in reversed(list(topology.nodes.values())):
        if node.op_type in ("Add", "Relu", *MOVES, *_BETWEEN) and wanted.intersection(node.output):
            wanted.update(name for _, name in topology.values(node))
    return wanted


def _placement(topology: Topology, layers: set[str], operands: set[Operand], results: set[str]) -> Placement:
    products = [name for name, node in topology.nodes.items() if node.op_type in COMPUTE]
    return Placement(
        layers=tuple(name for name in products if name in layers),
        float_layers=tuple(name for name in products if name not in layers),
        operands=frozenset(operands),
        results=frozenset(results),
        shared=tuple(_shared(topology)),
    )


def _shared(topology: Topology) -> Iterator[frozenset[str]]:
    """Yield the sets of tensors between which values only move: views, and what is concatenated."""
    group_of: dict[str, set[str]] = {}
    for node in topology.nodes.values():
        if node.op_type in (*MOVES, *_BETWEEN):
            tensors = [*node.output, *(name for index, name in topology.values(node))]
            group = set().union(*(group_of.get(name, {name}) for name in tensors))
            group_of.update(dict.fromkeys(group, group))
    unique = {id(group): group for group in group_of.values()}
    return (frozenset(group) for group in unique.values())
