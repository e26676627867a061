"""What an engine really ran in, per branch of the network, and whether that is what was asked for.

Engines report their layers as :class:`Layer`; everything here is the same for each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.branches import OTHER
from emadeploy.contract.errors import BuildError
from emadeploy.contract.preprocess import preprocess

#: Made frames that are run for an audit, after one that finds the memory.
FRAMES = 2
MIXED = "mixed"
_FLOATS = ("fp32", "bf16", "fp16")
_SHOWN = 4


@dataclass(frozen=True)
class Layer:
    """A layer that an engine ran.

    - ``nodes``: the nodes of the graph that it computes; ``branch``: the branch of the network that it is part of.
    - ``precision``: 'int8', 'bf16', 'fp16', 'fp32', or the name of another type. ``microseconds``: its time per frame.
    - ``compute``: whether it is a convolution or a matrix product: what a target's precision is about.
    """

    nodes: tuple[str, ...]
    branch: str
    precision: str
    microseconds: float
    compute: bool


def made_input(graph: OnnxGraph, seed: int) -> np.ndarray[Any, Any]:
    """Return an input for ``graph``: a smooth gradient under noise, the same for each seed."""
    H, W = graph.frame_size or graph.model.input.size
    gradient_HW1 = np.add.outer(np.linspace(0, 120, H), np.linspace(0, 80, W))[:, :, None]
    noise_HW3 = np.random.default_rng(seed).integers(0, 50, (H, W, 3))
    frame_HW3 = (gradient_HW1 + noise_HW3).astype(np.uint8)
    return frame_HW3 if graph.frame_size is not None else preprocess(frame_HW3, graph.model.input)


def audit(layers: Iterable[Layer], *, engine: str, machine: str | None, branches: Sequence[str] = ()) -> dict[str, Any]:
    """Return the record for the manifest: per branch and in 'total', how much ran in which precision.

    'layers' and 'time' are shares, 'compute' counts convolutions and matrix products. Branches come in the order of
    ``branches``; those of which no layer is left are not there.
    """
    layers = list(layers)
    present = [name for name in (*branches, OTHER) if any(layer.branch == name for layer in layers)]
    present += sorted({layer.branch for layer in layers} - {*present})
    return {
        "engine": engine,
        "machine": machine,
        "branches": {name: _shares([layer for layer in layers if layer.branch == name]) for name in present},
        "total": _shares(layers),
    }


def obtained(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the precision per branch of an audit: that of its convolutions and products, 'mixed' where they differ.

    A branch without any has the precision that takes most of its time. What belongs to no branch is left out, unless
    there is one among it.
    """
    found = {}
    for name, shares in record["branches"].items():
        if name == OTHER and not shares["compute"]:
            continue
        computed = shares["compute"]
        if len(computed) > 1:
            found[name] = MIXED
        else:
            found[name] = next(iter(computed), None) or max(shares["time"], key=shares["time"].__getitem__)
    return found


def check_obtained(layers: Iterable[Layer], target: str, wanted: Mapping[str, str], kept: Collection[str]) -> None:
    """Check that each convolution and product runs in the precision that is ``wanted`` of its branch.

    Nodes in ``kept`` stay in higher precision on purpose: any float will do. Raises BuildError that names the branch
    and its layers; of several branches, the one with most of them.
    """
    wrong: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        if not layer.compute or layer.precision == wanted[layer.branch]:
            continue
        if layer.precision in _FLOATS and any(node in kept for node in layer.nodes):
            continue
        wrong.setdefault((layer.branch, layer.precision), []).append(layer)
    if not wrong:
        return
    (branch, precision), found = max(wrong.items(), key=lambda item: len(item[1]))
    asked = wanted[branch]
    names = [layer.nodes[0] if layer.nodes else "a layer without a name" for layer in found]
    names[_SHOWN:] = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    what = "convolution or product runs" if len(found) == 1 else "convolutions and products run"
    says = f"{target}: branch {branch!r} was asked for in {asked}; {len(found)} {what} in {precision}"
    raise BuildError(f"{says}: {', '.join(names)}. {_advice(asked, precision)}")


def _advice(asked: str, precision: str) -> str:
    if asked == "int8":
        return (
            "Both inputs of a layer must be quantised, symmetrically: calibrate it so, or keep it in float on purpose, "
            "as --max-drop does"
        )
    if precision == "int8":
        return "It was quantised all the same: calibrate again without it"
    return f"The engine has one precision for what is not int8: ask for {precision} there, or for another target"


def _shares(layers: Sequence[Layer]) -> dict[str, Any]:
    counts, times = Counter[str](), Counter[str]()
    for layer in layers:
        counts[layer.precision] += 1
        times[layer.precision] += layer.microseconds  # type: ignore[assignment]
    computed = Counter(layer.precision for layer in layers if layer.compute)
    return {
        "layers": {name: round(count / len(layers), 4) for name, count in counts.most_common()},
        "time": {name: round(time / (sum(times.values()) or 1), 4) for name, time in times.most_common()},
        "compute": dict(computed.most_common()),
        "microseconds": round(sum(times.values())),
    }
