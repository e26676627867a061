"""Ranges that training has learned, in the place of measured ones.

A run of `emadeploy train --qat` starts from the graph with Q/DQ that calibration makes; `learning_record` tells it
which pairs share a scale. What it learns comes back with the checkpoint, and goes into the same places of the graph
that is exported then: `structure_of` tells whether they are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.insert import pair_source, tensors_of
from emadeploy.calibrate.placement import Placement, Topology
from emadeploy.calibrate.ranges import Range
from emadeploy.calibrate.recipe import Recipe
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.plain import to_plain

#: What stands around the network in a graph that takes frames, or resizes its answers.
_AROUND = re.compile(r"(frame|decode|outputs)[./]")
_IMAGE = "image"
_AGAIN = "fine-tune again from this checkpoint with --qat, or export the one it was made from"


@dataclass(frozen=True)
class Learned:
    """The ranges that a checkpoint brings: ``ranges`` by group of tensors, found for ``target`` by ``recipe``.

    ``structure``: of the graph that they were learned on. ``facts``: 'steps', 'data' and what else the manifest says.
    """

    target: str
    recipe: Mapping[str, Any]
    structure: str
    ranges: Mapping[str, Range]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Learned:
        """Return what a checkpoint says, with the 'step' that it stands at; raises CalibrationError where damaged."""
        try:
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in data["ranges"].items()}
            facts = {**data["facts"], "steps": data["step"]}
            learned = cls(data["target"], data["recipe"], data["structure"], ranges, facts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CalibrationError(f"the checkpoint's learned ranges are damaged ({error!r}): {_AGAIN}") from None
        for name, (low, high) in ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
                raise CalibrationError(
                    f"the checkpoint's learned range of {name!r}, {low} to {high}, is none: {_AGAIN}"
                )
        return learned

    def ranges_of(self, model: onnx.ModelProto, placement: Placement, recipe: Recipe) -> dict[str, Range]:
        """Return the range of each tensor that ``placement`` rounds in ``model``, which nothing is kept out of.

        Raises CalibrationError where they were learned for other integers, or another graph.
        """
        for name in ("activations", "weights", "types"):
            learned, wanted = self.recipe[name], getattr(recipe, name)
            if learned != wanted:
                raise CalibrationError(
                    f"the checkpoint's ranges were learned for {name} {learned!r}, and this export is for {wanted!r}: "
                    f"export with that in the recipe, or {_AGAIN}"
                )
        groups = _groups(model, placement)
        unlike = sorted({*groups.values()} ^ {*self.ranges})
        if unlike or structure_of(model) != self.structure:
            where = f", which rounds {unlike[0]!r} on one side alone" if unlike else ""
            raise CalibrationError(
                f"the checkpoint's ranges were learned on another graph{where}: other tasks, another --size, form of "
                f"CTAL or version of torch. Export as it was trained, or {_AGAIN}"
            )
        return {tensor: self.ranges[group] for tensor, group in groups.items()}


def learned_for(graph: OnnxGraph, recipe: Recipe) -> Learned | None:
    """Return the ranges that ``graph`` brings for the recipe's target, if any. Raises CalibrationError."""
    learned = None if graph.learned is None else Learned.of(graph.learned)
    return learned if learned is not None and learned.recipe.get("target") == recipe.target else None


def learning_record(
    quantised: onnx.ModelProto, model: onnx.ModelProto, placement: Placement, target: str, recipe: Recipe
) -> dict[str, Any]:
    """Return, as plain data, what a run must know of ``quantised``, which is ``model`` with the pairs of ``placement``.

    'groups': QuantizeLinear -> the tensor that its group is called by; and the fields of `Learned` but for the ranges.
    """
    group_of = _groups(model, placement)
    sources = {node.name: pair_source(node) for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    return {
        "target": target,
        "recipe": to_plain(recipe),
        "structure": structure_of(model),
        "groups": {name: group_of[tensor] for name, tensor in sources.items()},
    }


def structure_of(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of the network's nodes: names, kinds, attributes and the values that they read, in hex.

    Weights do not count, nor does what stands around the network: frames may be taken in the graph, or outside.
    """
    topology = Topology(model)
    nodes = [
        [
            node.name,
            node.op_type,
            [_called(name, topology) for _, name in topology.values(node)],
            sorted((a.name, str(onnx.helper.get_attribute_value(a))) for a in node.attribute),
        ]
        for node in model.graph.node
        if not _AROUND.match(node.name)
    ]
    return hashlib.sha256(json.dumps(nodes).encode()).hexdigest()


def _groups(model: onnx.ModelProto, placement: Placement) -> dict[str, str]:
    """Return, of each tensor that ``placement`` rounds, the first of those that share its scale."""
    tensors = tensors_of(model, placement)
    topology = Topology(model)
    group_of = {name: _called(name, topology) for name in tensors}
    for shared in placement.shared:
        members = [name for name in tensors if name in shared]
        group_of.update(dict.fromkeys(members, min((group_of[name] for name in members), default="")))
    return group_of


def _called(tensor: str, topology: Topology) -> str:
    """Return the name of a tensor that does not depend on what stands in front of the network."""
    maker = topology.producer.get(tensor)
    return _IMAGE if maker is None or _AROUND.match(maker.name) else tensor
