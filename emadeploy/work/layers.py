"""From a graph to its work: what each kernel multiplies, reads and writes, and what all of it takes of the memory."""

from __future__ import annotations

import math

from emadeploy.contract.branches import branch_of
from emadeploy.contract.work import Layer, Work
from emadeploy.work.forms import COMPUTE, Form, Forms, forms_of
from emadeploy.work.fuse import Kernel, Plan, fuse, kind_of
from emadeploy.work.net import Net, Node


def work_of(net: Net, *, uniform: str | None = None, rest: str | None = None) -> Work:
    """Return what ``net`` takes in the precision that its Q/DQ and types say, or in a ``uniform`` one (`Forms`).

    ``rest``: what floats are kept in where the engine is told so when it loads.
    """
    forms = forms_of(net, uniform, rest)
    plan = fuse(forms)
    kept = _kept(forms, plan)
    layers = tuple(_layer(forms, plan, kernel, kept) for kernel in plan.kernels)
    return Work(layers, _weight_bytes(forms, plan), _peak(forms, plan, kept))


def macs_of(node: Node, net: Net) -> int:
    """Return the multiply-accumulates of ``node``: direct convolution, no trick that saves some."""
    if node.op not in COMPUTE:
        return 0
    left, right = (net.tensors[name].shape for name in node.inputs[:2])
    if node.op == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])  # weight (I, O / groups, h, w)
    result = net.tensors[node.outputs[0]].elements
    return result * (math.prod(right[1:]) if node.op == "Conv" else _inner(node, net))


def _inner(node: Node, net: Net) -> int:
    left, right = (net.tensors[name].shape for name in node.inputs[:2])
    if node.op in ("MatMul", "Gemm"):
        return left[-2 if node.transposed and len(left) > 1 else -1]
    return right[1] if node.op == "Conv" else left[1] // node.group


def _outer(node: Node, net: Net) -> int:
    shape = net.tensors[node.outputs[0]].shape
    if node.op in ("MatMul", "Gemm"):
        return shape[-1] if shape else 1
    return shape[1] // node.group


def _kept(forms: Forms, plan: Plan) -> dict[Form, int]:
    """Return every form in which a map is kept, with the last kernel that reads it."""
    last: dict[Form, int] = {}
    for index, kernel in enumerate(plan.kernels):
        last |= dict.fromkeys(kernel.reads, index)
    for name in forms.net.outputs:
        last[Form(forms.of[name].source, forms.net.tensors[name].type)] = len(plan.kernels)
    return last


def _layer(forms: Forms, plan: Plan, kernel: Kernel, kept: dict[Form, int]) -> Layer:
    net, head = forms.net, kernel.head
    computes = head.op in COMPUTE
    return Layer(
        name=head.name,
        kind=kind_of(head, net),
        branch=branch_of(head.name),
        precision=forms.precision(head),
        macs=macs_of(head, net),
        inner=_inner(head, net) if computes else 0,
        outer=_outer(head, net) if computes else 0,
        reads=tuple(_bytes(forms, form) for form in kernel.reads),
        writes=_writes(forms, plan, kernel, kept),
        weights=sum(_bytes(forms, form) for form in _constants(forms, kernel)),
    )


def _writes(forms: Forms, plan: Plan, kernel: Kernel, kept: dict[Form, int]) -> tuple[int, ...]:
    """Return the bytes of each map that a kernel writes, in every type that somebody reads."""
    results = [name for node in kernel.nodes for name in node.outputs]
    places = {name: plan.place_of(name) for name in results}
    return tuple(
        forms.net.tensors[name].bytes_as(form.type)
        for form in kept
        for name, place in places.items()
        if form.source == place
    )


def _bytes(forms: Forms, form: Form) -> int:
    return forms.net.tensors[form.source].bytes_as(form.type)


def _constants(forms: Forms, kernel: Kernel) -> dict[Form, None]:
    """Return the constants that a kernel reads, each once; axes, extents and scales of rounding are none."""
    net = forms.net
    read = ((node, name) for node in kernel.nodes for name in node.inputs if name in net.constants)
    return {forms.read(node, name): None for node, name in read if net.tensors[name].type not in ("int32", "int64")}


def _weight_bytes(forms: Forms, plan: Plan) -> int:
    constants = {form: None for kernel in plan.kernels for form in _constants(forms, kernel)}
    return sum(_bytes(forms, form) for form in constants)


def _peak(forms: Forms, plan: Plan, kept: dict[Form, int]) -> int:
    """Return the most bytes of maps at one time: each from the kernel that writes it to the last that reads it."""
    first: dict[str, int] = {}
    for index, kernel in enumerate(plan.kernels):
        for name in (name for node in kernel.nodes for name in node.outputs):
            first.setdefault(plan.place_of(name), index)
    change = [0] * (len(plan.kernels) + 2)
    for form, last in kept.items():
        # What nothing makes is the network's input: it is there from the start.
        change[first.get(form.source, 0)] += _bytes(forms, form)
        change[last + 1] -= _bytes(forms, form)
    now = most = 0
    for step in change[: len(plan.kernels)]:
        now += step
        most = max(most, now)
    return most
