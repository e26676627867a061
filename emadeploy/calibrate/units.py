"""What may stay in higher precision: groups of compute nodes that stay together, and the sections users know.

Nodes are named by the path of their layer, 'heads.depth.0.conv1/Conv'.

| section | what is in it |
|---|---|
| ``backbone`` (``backbone.TASK`` where every task has one) | the encoder and the fusion of its scales |
| ``initial.TASK`` | the initial heads, whose features CTAL takes |
| ``propagation`` | what hands features from scale to scale, multi scale only |
| ``ctal.intra`` | the features that affinities are made of: narrowed, and of unit length |
| ``ctal.inter`` | the affinities of all tasks: sums over the pixels, and their mixing by the fusion kernels |
| ``ctal.diffusion`` | the values, and what attends to them |
| ``upsampling.TASK`` | from CTAL's map to twice its size |
| ``heads.TASK`` | the heads, and the resizing of their maps |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from emadeploy.contract.branches import OTHER, branch_of
from emadeploy.contract.plain import require
from emadeploy.evaluate.metrics import TaskMetrics

#: The metrics by task, on all frames, with these nodes in higher precision and the rest in int8.
Measure = Callable[[frozenset[str]], TaskMetrics]
#: The error by task of the raw maps (`evaluate.parity.raw_error`), on a few frames, with these nodes in higher
#: precision and the rest in int8: cheap, where `Measure` is expensive.
Probe = Callable[[frozenset[str]], Mapping[str, float]]
#: Called after each measurement with the number done and the most that there can be.
Progress = Callable[[int, int], None]

# Inside CTAL; first match wins. `{}` stands for the task.
_CTAL = (
    (r"conv_in", "ctal.intra"),
    (r"conv_out\.(\w+)", "upsampling.{}"),
    (r"spatial_att(?:\.normalise|/(?:ReduceL2|Clip|Reciprocal)(?:_\d+)?)", "ctal.intra"),
    (r"spatial_att\.(?:keys|mix|gather|fusion|task_fusion)", "ctal.inter"),
    (r"spatial_att\.spread\.\d+/Mul", "ctal.inter"),
    # The values, the products with them, and what joins, splits and adds up.
    (r"spatial_att", "ctal.diffusion"),
)
_CTAL_ROOT = re.compile(r"(?:affinity_learning_module|ctal)\.")
#: A layer inside a block whose sum wants all its terms in one precision, or one of many products of one kind.
_INSIDE_A_BLOCK = re.compile(r"\.(?:conv\d|downsample\.\d+|product(?:\.\d+)?)$")


@dataclass(frozen=True)
class Unit:
    """Nodes that stay in higher precision together, in one ``section``.

    ``cost`` is what that takes, in time or in multiplications: a positive number that only compares with others.
    """

    name: str
    nodes: tuple[str, ...]
    section: str
    cost: float


def section_of(node: str) -> str:
    """Return the section of the network that a node of this name belongs to, 'other' for one of no layer."""
    branch = branch_of(node)
    if branch != "ctal":
        return branch
    inside = _CTAL_ROOT.sub("", node, count=1)
    for pattern, section in _CTAL:
        if match := re.match(rf"(?:{pattern})(?![^./])", inside):
            return section.format(*match.groups())
    return OTHER


def units_of(costs: Mapping[str, float]) -> tuple[Unit, ...]:
    """Return the units of compute nodes, given in the order of the network with their costs: one per block or layer.

    Raises SpecError for a cost that is not positive.
    """
    blocks: dict[str, list[str]] = {}
    for node in costs:
        layer = node.rpartition("/")[0] or node
        blocks.setdefault(_INSIDE_A_BLOCK.sub("", layer), []).append(node)
    units = tuple(
        Unit(block, tuple(nodes), section_of(nodes[0]), sum(costs[node] for node in nodes))
        for block, nodes in blocks.items()
    )
    check_units(units)
    return units


def nodes_of(units: Sequence[Unit]) -> frozenset[str]:
    """Return the nodes of all ``units``."""
    return frozenset(node for unit in units for node in unit.nodes)


def check_units(units: Sequence[Unit]) -> None:
    """Raise SpecError where two units share a name or a node, or one has no node or a cost that is not positive."""
    require(bool(units), "there is no unit that could stay in higher precision")
    names = [unit.name for unit in units]
    require(len(set(names)) == len(names), f"two units share a name: {', '.join(names)}")
    require(len(nodes_of(units)) == sum(len(unit.nodes) for unit in units), "two units share a node")
    for unit in units:
        require(bool(unit.nodes) and unit.cost > 0, f"unit {unit.name!r} has no node, or cost {unit.cost}, not above 0")
