"""In which form each map lies in memory: what an engine does to it on the way to its reader costs no pass of its own.

Q/DQ and casts change how a map is written and read, reshaping changes nothing: of them all that is left is the *form*,
the map as it was computed and the type in which this reader gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from emadeploy.work.net import TO_BYTES, Net, Node

#: The same bytes under another shape.
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout")
#: The same values in other places.
MOVES = (
    *("Transpose", "Concat", "Slice", "Split", "Pad", "DepthToSpace", "SpaceToDepth", "Gather", "Expand", "Tile"),
    "ScatterND",
)
COMPUTE = ("Conv", "ConvTranspose", "MatMul", "Gemm")
#: Widest first.
_FLOATS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Form:
    """A map, by the name of the tensor that a kernel computes, in the type in which it is kept."""

    source: str
    type: str


@dataclass(frozen=True)
class Forms:
    """``of``: tensor -> its form. ``kernels``: the nodes that are left, in order. ``net``: the graph.

    With a ``uniform`` precision the graph is looked at as if it had been made for it: 'fp16', 'bf16' and 'fp32' are the
    type of all maps and weights, and with 'int8' convolutions and products take bytes, and all else is float16.
    """

    net: Net
    of: dict[str, Form]
    kernels: tuple[Node, ...]
    uniform: str | None = None

    def read(self, node: Node, operand: str) -> Form:
        """Return the form in which ``node`` gets ``operand``."""
        form = self.of[operand]
        if form.type not in _FLOATS or self.uniform is None:
            return form
        if form.source in self.net.inputs:
            return form
        if self.uniform == "int8":
            bytes_ = node.op in COMPUTE and operand in node.inputs[:2]
            return Form(form.source, "int8" if bytes_ else "fp16")
        return Form(form.source, self.uniform)

    def precision(self, node: Node) -> str:
        """Return the precision in which ``node`` works: int8 where it reads bytes alone, else its widest float.

        The image does not count where there is anything else: it is rounded as it is read.
        """
        if self.uniform == "int8" and node.op in COMPUTE:
            return "int8"
        forms = [self.read(node, operand) for operand in (node.inputs[:2] if node.op in COMPUTE else node.inputs[:1])]
        own = [form for form in forms if form.source not in self.net.inputs]
        types = {form.type for form in own or forms}
        widest = next((type_ for type_ in _FLOATS if type_ in types), None)
        # What handles indices and truth values is no arithmetic of the network; it has to be called something.
        return widest or ("int8" if "int8" in types else "fp32")


def forms_of(net: Net, uniform: str | None = None, rest: str | None = None) -> Forms:
    """Return the forms of all tensors of ``net``. ``rest``: what floats are kept in, where the engine is told so."""

    def kept(type_: str) -> str:
        return rest if rest is not None and type_ in _FLOATS else type_

    of = {name: Form(name, kept(tensor.type)) for name, tensor in net.tensors.items()}
    for name in net.inputs:
        of[name] = Form(name, net.tensors[name].type)
    kernels = []
    readers, makers = _readers(net), {name: node for node in net.nodes for name in node.outputs}
    for node in net.nodes:
        if node.op in _VIEWS or _is_free(node, readers, makers):
            of[node.outputs[0]] = of[node.inputs[0]]
        elif node.op in TO_BYTES:
            of[node.outputs[0]] = Form(of[node.inputs[0]].source, "int8")
        elif node.op == "DequantizeLinear":
            of[node.outputs[0]] = of[node.inputs[0]]
        elif node.op == "Cast":
            before = of[node.inputs[0]]
            as_given = before.source in net.inputs
            of[node.outputs[0]] = before if as_given else Form(before.source, kept(net.tensors[node.outputs[0]].type))
        else:
            kernels.append(node)
            maps = [of[name].type for name in node.inputs if name not in net.constants]
            if node.op in MOVES and maps and set(maps) == {"int8"}:
                # What was rounded before it is moved is moved as bytes.
                of |= {name: Form(name, "int8") for name in node.outputs}
    return Forms(net, of, tuple(kernels), uniform)


def _readers(net: Net) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in net.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return readers


def _is_free(node: Node, readers: dict[str, list[Node]], makers: dict[str, Node]) -> bool:
    """Whether it is a transposition that the product beside it does as it reads or writes."""
    if node.op != "Transpose":
        return False
    passed = (*_VIEWS, *TO_BYTES, "DequantizeLinear", "Cast")

    def only_products(name: str) -> bool:
        found = readers.get(name, [])
        return bool(found) and all(
            reader.op in ("MatMul", "Gemm") or (reader.op in passed and only_products(reader.outputs[0]))
            for reader in found
        )

    maker = makers.get(node.inputs[0])
    while maker is not None and maker.op in passed:
        maker = makers.get(maker.inputs[0])
    return only_products(node.outputs[0]) or (maker is not None and maker.op in ("MatMul", "Gemm"))
