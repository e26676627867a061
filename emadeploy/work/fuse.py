"""What runs as one kernel: a node that does the work, and behind it whatever handles its values one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from emadeploy.work.forms import COMPUTE, MOVES, Form, Forms
from emadeploy.work.net import Net, Node

_REDUCES = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ArgMax", "Softmax", "LpNormalization", "MaxPool"),
    *("AveragePool", "GlobalAveragePool", "LayerNormalization", "InstanceNormalization"),
)


@dataclass
class Kernel:
    """The node that does the work, with those fused behind it, itself the first; and the maps that they read."""

    head: Node
    nodes: list[Node] = field(default_factory=list)
    reads: dict[Form, None] = field(default_factory=dict)  # in order, each once


@dataclass
class Plan:
    """``kernels`` in the order in which they run. ``joined``: map -> the map that it is written into as a part."""

    kernels: list[Kernel] = field(default_factory=list)
    joined: dict[str, str] = field(default_factory=dict)

    def place_of(self, source: str) -> str:
        """Return the map into which ``source`` is written, itself where it is no part of another."""
        while source in self.joined:
            source = self.joined[source]
        return source


def kind_of(node: Node, net: Net) -> str:
    """Return the kind of layer that ``node`` is (`contract.work.KINDS`)."""
    if node.op in ("MatMul", "Gemm"):
        return "product"
    if node.op in COMPUTE:
        channels = net.tensors[node.inputs[0]].shape[1]
        return "depthwise" if node.group > 1 and node.group == channels else "conv"
    if node.op == "Resize":
        return "resize"
    return "move" if node.op in MOVES else "reduce" if node.op in _REDUCES else "pointwise"


def fuse(forms: Forms) -> Plan:
    """Return the kernels of a graph, each at the place of the node that does its work.

    What handles values one by one goes into the kernel that makes the last of what it reads. Maps that are read only to
    be put beside each other are written there at once.
    """
    net, plan = forms.net, Plan()
    readers = Counter(source for node in forms.kernels for source in {forms.of[name].source for name in node.inputs})
    readers.update(forms.of[name].source for name in net.outputs)
    made: dict[str, int] = {}  # map -> its kernel
    for node in forms.kernels:
        sources = [forms.of[name].source for name in node.inputs if name not in net.constants]
        if node.op == "Concat" and all(source in made and readers[source] == 1 for source in sources):
            plan.joined |= dict.fromkeys(sources, node.outputs[0])
            made[node.outputs[0]] = max(made[source] for source in sources)
            continue
        index = _host(node, sources, net, plan, made) if kind_of(node, net) == "pointwise" else None
        if index is None:
            index = len(plan.kernels)
            plan.kernels.append(Kernel(node))
        _add(plan.kernels[index], node, forms)
        made |= dict.fromkeys(node.outputs, index)
    return plan


def _host(node: Node, sources: list[str], net: Net, plan: Plan, made: dict[str, int]) -> int | None:
    """Return the kernel that ``node`` goes into; ``None`` where none makes as many values as it, or all at once."""
    before = [source for source in sources if source in made]
    if not before:
        return None
    last = max(before, key=made.__getitem__)
    same = net.tensors[last].elements == net.tensors[node.outputs[0]].elements
    return made[last] if same and last not in plan.joined.values() else None


def _add(kernel: Kernel, node: Node, forms: Forms) -> None:
    own = {name for member in kernel.nodes for name in member.outputs}
    kernel.nodes.append(node)
    for name in node.inputs:
        form = forms.read(node, name)
        if name not in forms.net.constants and form.source not in own:
            kernel.reads[form] = None
