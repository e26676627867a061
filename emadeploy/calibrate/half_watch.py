"""What every tensor of a graph comes to on frames: its largest magnitude, and its root mean square.

Both are computed inside the graph, beside each tensor, so that a run answers three numbers a tensor, not the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from emadeploy.calibrate.half_graph import EXACT, FLOAT, FloatGraph
from emadeploy.calibrate.side_by_side import answers, options
from emadeploy.contract.errors import CalibrationError


@dataclass(frozen=True)
class Seen:
    """A tensor on all frames: its ``largest`` magnitude, on ``frame``, and the smallest root mean square of a frame."""

    largest: float
    frame: int
    rms: float


def watch(
    graph: FloatGraph, feeds: Sequence[dict[str, Any]], progress: Callable[[int, int], None] | None = None
) -> dict[str, Seen]:
    """Run the graph on every feed; return what each float32 tensor came to, those given to the graph among them.

    What nodes only move or cut off is said to come to what they read; of several, to the one that reaches farthest.

    Raises CalibrationError where one is not finite.
    """
    names = _computed(graph)
    model = _watched(graph.model, names)
    session = ort.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])
    outputs = [output for name in names for output in _answers(name)]
    values = np.empty((len(feeds), len(names), 3))
    for index, (_, found) in enumerate(answers(session, outputs, feeds)):
        values[index] = np.reshape(found, (len(names), 3))
        if progress:
            progress(index + 1, len(feeds))
    largest = np.maximum(values[..., 0], -values[..., 1])
    rms = values[..., 2] / np.sqrt([max(1, math.prod(graph.shapes[name])) for name in names])
    for column, name in enumerate(names):
        if not np.isfinite(largest[:, column]).all():
            frame = int(np.flatnonzero(~np.isfinite(largest[:, column]))[0])
            raise CalibrationError(
                f"{name!r} on frame {frame} is not finite: the network itself is damaged there; evaluate it first"
            )
    frames = largest.argmax(0)
    seen = {
        name: Seen(float(largest[frames[i], i]), int(frames[i]), float(rms[:, i].min())) for i, name in enumerate(names)
    }
    for node in graph.model.graph.node:
        if node.op_type in EXACT:
            read = [seen[name] for name in node.input if name in seen]
            seen |= dict.fromkeys(node.output, max(read, key=lambda found: found.largest)) if read else {}
    return seen


def _computed(graph: FloatGraph) -> list[str]:
    given = [value.name for value in graph.model.graph.input]
    made = [name for node in graph.model.graph.node if node.op_type not in EXACT for name in node.output]
    return [name for name in (*given, *made) if graph.types.get(name) == FLOAT]


def _answers(name: str) -> tuple[str, str, str]:
    return f"{name}/highest", f"{name}/lowest", f"{name}/length"


def _watched(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in names:
        for op_type, made in zip(("ReduceMax", "ReduceMin", "ReduceL2"), _answers(name), strict=True):
            watched.graph.node.append(helper.make_node(op_type, [name], [made], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(made, FLOAT, []))
    return watched
