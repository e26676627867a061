"""What stays in float32 beside float16: by rule, by what was measured on frames, and by the harm to each task.

In turn, each with its reason in the record:

1. What float16 cannot hold (`half_graph.unfit`), and what comes of an epsilon (such as the 1e-12 under a length), up
   to the node that joins it with other values: 1 / 1e-12 is infinite in float16, and infinity times a zero feature NaN.
2. By rule, whatever the frames show. Norms and exponentials, which square or blow up what they read. Sums of computed
   values over more than LONG terms, such as those over all pixels in CTAL: ONNX Runtime adds up in float32, so it
   cannot show what TensorRT does where it adds up in float16, whose steps at LONG times a term are as large as that
   term. Convolutions, whose weights are known, are judged by what follows.
3. Overflow: a tensor, or a partial sum, comes within MARGIN of float16's largest number on a frame. The bound of a sum
   is that of its magnitudes, which any order of adding up respects. Underflow: so small a tensor that the steps between
   float16's smallest numbers take more than LOSS of its length.
4. Harm: what is left runs in float16 (`half_rounding`) beside float32 on a few frames. Where the raw map of a task is
   off by more than HARM, sections of the network (`units.section_of`) go back to float32, the most harmful first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_graph import FLOAT, LARGEST, LOSS, STEP, FloatGraph
from emadeploy.calibrate.half_rounding import rounded
from emadeploy.calibrate.half_watch import Seen, watch
from emadeploy.calibrate.units import section_of
from emadeploy.contract.errors import CalibrationError
from emadeploy.evaluate.parity import raw_error
from emadeploy.runtime.backends.onnxruntime import session_options
from emadeploy.runtime.machine import usable_cores

#: Other frames than those seen may go this much higher.
MARGIN = 8.0
#: Steps of float16 between 1 and 2, twice: from there on, a term is lost beside the sum of those before it.
LONG = 2048
#: Relative L2 error of a task's raw map that float16 may leave. A hundred layers that each round to 11 bits leave
#: about 10 x 2**-11, 0.5 % (emanet-rooms: 0.3 to 0.7 %), which is the price of float16 and not the fault of a layer.
#: Int8 leaves 1.5 to 4 % there and holds its budgets.
HARM = 1e-2
#: Where all values are under SMALLEST, rounding leaves STEP / sqrt(12) of each.
_FAINT = STEP / math.sqrt(12) / LOSS
#: Frames that are watched for overflow, and that harm is measured on: errors of rounding differ little between frames.
WATCHED, PROBED = 8, 2
_NORMS = (
    *("ReduceL2", "ReduceSumSquare", "LpNormalization", "InstanceNormalization", "LayerNormalization"),
    *("GroupNormalization", "MeanVarianceNormalization", "Pow", "Exp", "Softmax", "LogSoftmax", "ReduceLogSumExp"),
)
_SUMS = ("ReduceSum", "ReduceMean", "ReduceL1", "GlobalAveragePool")

Errors = Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """``keep``: node -> why it stays in float32.

    ``errors``: by task, what float16 elsewhere leaves; ``probes``: by section, what it leaves there alone, where that
    had to be asked; ``frames``: what all this was measured on.
    """

    keep: Mapping[str, str]
    errors: Errors
    probes: Mapping[str, Errors]
    frames: Mapping[str, Any]

    def with_more(self, more: Mapping[str, str]) -> Choice:
        """Return the choice with ``more`` nodes in float32, each with its reason."""
        return replace(self, keep={**more, **self.keep})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the manifest: the nodes in float32, and each reason with its nodes."""
        reasons: dict[str, list[str]] = {}
        for node, why in self.keep.items():
            reasons.setdefault(why, []).append(node)
        return {
            "float32": list(self.keep),
            "reasons": reasons,
            "errors": dict(self.errors),
            "bound": HARM,
            "probes": {section: dict(errors) for section, errors in self.probes.items()},
            "frames": {**self.frames, "watched": WATCHED, "probed": PROBED},
        }


def choose(graph: OnnxGraph, frames: CalibrationFrames, progress: Callable[[int, int], None] | None = None) -> Choice:
    """Return what of ``graph``, float32 without Q/DQ, stays in float32.

    ``progress`` is called with the number of frames that were watched, and of all. Raises CalibrationError where a
    tensor is not finite, or float16 harms a task whatever stays in float32.
    """
    model = onnx.load(graph.path)
    floats = FloatGraph(model)
    [given] = graph.inputs
    every = -(-len(frames) // WATCHED)  # spread over all of them
    feeds = list(islice(frames.feeds(given), 0, None, every))
    seen = watch(floats, feeds, progress)
    keep: dict[str, str] = {}
    for node, why in (*_by_rule(floats), *_measured(floats, seen, every)):
        keep.setdefault(node, why)
    tasks = graph.model.task_names
    probe = _Probe(model, tasks, feeds[:PROBED])
    errors, probes = probe(keep), {}
    if _over(errors):
        probes = {section: probe(_all_but(model, keep, section)) for section in _sections(model, keep)}
    for section in sorted(probes, key=lambda name: -max(probes[name].values())):
        if not _over(errors):
            break
        why = "harm of its section: " + _in_words(probes[section])
        inside = [node.name for node in model.graph.node if section_of(node.name) == section]
        keep |= {name: why for name in inside if name not in keep}
        errors = probe(keep)
    if _over(errors):
        raise CalibrationError(
            f"{graph.path}: in float16, {_in_words(errors)}, whatever stays in float32; at most {100 * HARM:g} % is "
            "allowed: export in float32"
        )
    order = [node.name for node in model.graph.node if node.name in keep]
    return Choice({name: keep[name] for name in order}, errors, probes, frames.facts())


class _Probe:
    """The errors by task of the raw maps on a few frames, with some nodes in float32 and the others in float16."""

    def __init__(self, model: onnx.ModelProto, tasks: tuple[str, ...], feeds: list[dict[str, Any]]) -> None:
        self.model, self.tasks, self.feeds = model, tasks, feeds
        self.wanted = self._run(model)

    def __call__(self, keep: Collection[str]) -> dict[str, float]:
        found = self._run(rounded(to_half(self.model, keep)))
        pairs = list(zip(found, self.wanted, strict=True))
        return {
            task: max(raw_error(np.asarray(a[index]), np.asarray(b[index])) for a, b in pairs)
            for index, task in enumerate(self.tasks)
        }

    def _run(self, model: onnx.ModelProto) -> list[list[Any]]:
        options = session_options(usable_cores())
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [session.run(list(self.tasks), feed) for feed in self.feeds]


def _by_rule(graph: FloatGraph) -> Iterator[tuple[str, str]]:
    """Yield the nodes that stay in float32 whatever the frames show, and why."""
    unfit = graph.unfit()
    yield from unfit.items()
    yield from _of_epsilons(graph, unfit)
    for node in graph.model.graph.node:
        if node.op_type in _NORMS:
            yield node.name, f"{node.op_type} squares or raises what it reads"
        terms = terms_of(graph, node)
        if terms > LONG and node.op_type != "Conv":
            yield node.name, f"a sum of {terms} computed values"


def _of_epsilons(graph: FloatGraph, unfit: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield what comes of an epsilon, up to the node that joins it with other computed values."""
    spread: dict[str, str] = {}
    for node in graph.model.graph.node:
        floats = [name for name in node.input if graph.types.get(name) == FLOAT]
        computed = [name for name in floats if name not in graph.constants and name not in graph.pairs]
        source = next((spread[name] for name in computed if name in spread), None)
        if source:
            yield node.name, f"what comes of the epsilon of {source!r} can be infinite in float16"
        if node.name in unfit and node.op_type in ("Add", "Clip", "Max"):
            source = node.name
        if source and len(computed) == 1:
            spread |= dict.fromkeys(node.output, source)


def _measured(graph: FloatGraph, seen: Mapping[str, Seen], every: int) -> Iterator[tuple[str, str]]:
    """Yield the nodes with a tensor or a partial sum that float16 does not hold, and why."""
    for node in graph.model.graph.node:
        names = [name for name in (*node.input, *node.output) if name in seen]
        for name in names:
            found = seen[name]
            if not found.largest <= LARGEST / MARGIN:
                yield node.name, f"overflow: {name!r} reaches {found.largest:.3g} on frame {every * found.frame}"
            elif found.rms < _FAINT:
                yield node.name, f"underflow: {name!r} is {found.rms:.2g} in the mean on a frame"
        bound = _bound(graph, node, seen)
        if bound > LARGEST / MARGIN:
            yield node.name, f"overflow: partial sums may reach {bound:.3g}"


def _bound(graph: FloatGraph, node: onnx.NodeProto, seen: Mapping[str, Seen]) -> float:
    """Return what no partial sum of a node exceeds on the frames: the sum of the magnitudes of its terms."""
    if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in graph.constants and node.input[0] in seen:
        weight = np.abs(np.asarray(graph.array(node.input[1]), np.float64))
        sums = weight.reshape(weight.shape[0], -1).sum(1) if node.op_type == "Conv" else weight.sum(-2)
        return float(sums.max()) * seen[node.input[0]].largest
    terms = terms_of(graph, node)
    return terms * math.prod(seen[name].largest for name in node.input[:2] if name in seen) if terms > 1 else 0.0


def terms_of(graph: FloatGraph, node: onnx.NodeProto) -> int:
    """Return how many values a node adds up for one of its results; 1 for one that adds up nothing."""
    shapes = graph.shapes
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return shapes[node.input[0]][-2 if transposed else -1]
    if node.op_type in (*_SUMS, *_NORMS) and node.op_type.startswith(("Reduce", "Global")):
        return math.prod(shapes[node.input[0]]) // max(1, math.prod(shapes[node.output[0]]))
    return 1


def _sections(model: onnx.ModelProto, keep: Collection[str]) -> list[str]:
    return list(dict.fromkeys(section_of(node.name) for node in model.graph.node if node.name not in keep))


def _all_but(model: onnx.ModelProto, keep: Collection[str], section: str) -> set[str]:
    return {node.name for node in model.graph.node if node.name in keep or section_of(node.name) != section}


def _over(errors: Errors) -> bool:
    # Written so that NaN is over too.
    return not all(error <= HARM for error in errors.values())


def _in_words(errors: Errors) -> str:
    return ", ".join(f"{task} off by {100 * error:.2g} %" for task, error in errors.items())
