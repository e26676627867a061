"""TensorRT 8 to 11 and TensorRT for RTX: explicit Q/DQ, symmetric int8 alone, biases in float; then every tensor typed.

Nothing is left to the builder: from version 11 on, precision is what the graph says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from emadeploy.build.graph import GRAPH_NAME, OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half import to_half
from emadeploy.calibrate.half_choice import Choice
from emadeploy.calibrate.half_graph import unfit, with_types
from emadeploy.calibrate.half_integers import in_integers
from emadeploy.calibrate.half_rounding import rounded
from emadeploy.calibrate.insert import Types
from emadeploy.calibrate.lowered import lowered
from emadeploy.calibrate.placement import MOVES, place_for_tensorrt
from emadeploy.calibrate.qdq import Place, write_quantised
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.table import Progress
from emadeploy.contract.errors import CalibrationError
from emadeploy.runtime.machine import sums_bytes

#: What a graph of this engine is judged in, by what its floats are.
MEASURED_IN = {
    "fp32": "ONNX Runtime on the CPU, from the same graph: rounded where it has Q/DQ, all else in float32",
    "fp16": (
        "ONNX Runtime on the CPU, from the same graph: rounded where it has Q/DQ, and every float16 result rounded to "
        "float16; sums are added up in float32, those of bytes in integers where the CPU can"
    ),
}


def quantize(
    graph: OnnxGraph,
    frames: CalibrationFrames,
    recipe: Recipe,
    folder: Path,
    *,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> OnnxGraph:
    """Write ``graph`` with Q/DQ for TensorRT into ``folder``; return its record.

    Floats of the graph stay float32, until `typed` makes them what the recipe's ``rest`` says. ``keep`` names layers
    (Conv, Gemm, MatMul) that stay in float. ``progress`` is called with the number of frames run, and of all. Raises
    CalibrationError, as `write_quantised`.
    """
    place, types = rules(recipe)
    return write_quantised(graph, frames, recipe, folder, place=place, types=types, keep=keep, progress=progress)


def rules(recipe: Recipe) -> tuple[Place, Types]:
    """Return where pairs stand, and the integers, by a resolved recipe."""
    return place_for_tensorrt, Types("int8", True, per_channel=recipe.weights == "per_channel")


def typed(graph: OnnxGraph, folder: Path, choice: Choice | None) -> OnnxGraph:
    """Write ``graph``, with or without Q/DQ, strongly typed into ``folder``; return its record.

    Without Q/DQ it is written in opset 17, for TensorRT 8.6 (`lowered`).
    With a ``choice``, all is float16 but what it keeps, and what Q/DQ adds to that (`half_graph.unfit`); the record's
    'calibration' says so in 'rest' and 'half'. Without, all stays float32. Raises CalibrationError.
    """
    model = _bytes_at_the_border(onnx.load(graph.path))
    calibration: Mapping[str, Any] | None = graph.calibration
    if choice is not None:
        choice = choice.with_more(unfit(model))
        model = to_half(model, choice.keep)
        half = choice.to_dict()
        calibration = {"frames": half["frames"], **(calibration or {}), "rest": "fp16", "half": half}
    elif calibration is not None:
        calibration = {**calibration, "rest": "fp32"}
    if graph.calibration is None:
        model = lowered(model)
    [opset] = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return _written(replace(graph, folder=folder, opset=opset, calibration=calibration), model)


def stand_in(graph: OnnxGraph, folder: Path) -> OnnxGraph:
    """Write what `typed` graphs compute into ``folder``, for ONNX Runtime on any CPU (`half_rounding`).

    Products of bytes are summed in integers, as engines do, where this CPU can (`half_integers`).
    """
    model = rounded(onnx.load(graph.path))
    return _written(replace(graph, folder=folder), in_integers(model) if sums_bytes() else model)


def _bytes_at_the_border(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with the Cast of an input of bytes in front of what moves them: TensorRT moves no such bytes."""
    graph = model.graph
    for value in graph.input:
        if value.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            continue
        path: list[onnx.NodeProto] = []
        name = value.name
        while len(readers := [node for node in graph.node if name in node.input]) == 1:
            path.append(readers[0])
            if readers[0].op_type not in MOVES:
                break
            name = readers[0].output[0]
        if len(path) > 1 and path[-1].op_type == "Cast":
            *moves, cast = path
            moves[-1].output[0] = cast.output[0]
            cast.input[0], cast.output[0] = value.name, f"{value.name}/float"
            moves[0].input[0] = cast.output[0]
            graph.node.remove(cast)
            graph.node.insert(0, cast)
            del graph.value_info[:]
    return with_types(model)


def _written(graph: OnnxGraph, model: onnx.ModelProto) -> OnnxGraph:
    try:
        graph.folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, graph.folder / GRAPH_NAME)
        graph.write()
    except OSError as error:
        raise CalibrationError(f"the graph cannot be written to {graph.folder}: {error.strerror or error}") from None
    return graph
