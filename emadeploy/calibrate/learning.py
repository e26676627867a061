"""Where fine-tuning starts: a graph quantised as its target would have it, and what a run must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate import onnxruntime, quantizer, tensorrt
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.insert import Types
from emadeploy.calibrate.learned import learning_record
from emadeploy.calibrate.qdq import Place
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.table import Progress
from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.manifest import TARGETS, parse_target

#: Engine -> the rules by which its Q/DQ is placed.
_RULES: dict[str, Callable[[Recipe], tuple[Place, Types]]] = {
    "onnxruntime": onnxruntime.rules,
    "tensorrt": tensorrt.rules,
    "tensorrt_rtx": tensorrt.rules,
}
LEARNABLE = tuple(name for name, (engine, precision) in TARGETS.items() if engine in _RULES and precision == "int8")


def check_target(target: str) -> str:
    """Return the target that a run may be fine-tuned for, aliases resolved; raises SpecError for others."""
    target = parse_target(target)
    if target not in LEARNABLE:
        why = (
            "NNCF places OpenVINO's fake quantisation on a graph of its own and corrects biases there, so that learned "
            "scales would not be what ships"
            if target == "openvino-int8"
            else "it has no integers"
        )
        raise SpecError(f"--qat {target}: {why}; targets that can be fine-tuned for: {', '.join(LEARNABLE)}")
    return target


def prepare(
    graph: OnnxGraph,
    frames: CalibrationFrames,
    recipe: Recipe,
    target: str,
    folder: Path,
    progress: Progress | None = None,
) -> OnnxGraph:
    """Write ``graph`` with the Q/DQ of ``target`` into ``folder``; return its record.

    Its calibration has 'learning' (`learned.learning_record`) and the integers that weights and activations have.
    ``recipe`` is resolved. Raises CalibrationError.
    """
    engine, _ = TARGETS[target]
    quantised = quantizer(engine)(graph, frames, recipe, folder, progress=progress)
    place, types = _RULES[engine](recipe)
    model = onnx.load(graph.path)
    record = learning_record(onnx.load(quantised.path), model, place(model, ()), target, recipe)
    record |= {"largest": types.largest, "symmetric": types.symmetric}
    quantised = replace(quantised, calibration={**(quantised.calibration or {}), "learning": record})
    try:
        quantised.write()
    except OSError as error:
        raise CalibrationError(f"{folder} cannot be written: {error.strerror or error}") from None
    return quantised


def learning_of(quantised: OnnxGraph) -> dict[str, Any]:
    """Return what `prepare` wrote about a graph; raises CalibrationError where it was not made by it."""
    record: dict[str, Any] | None = (quantised.calibration or {}).get("learning")
    if record is None:
        raise CalibrationError(f"{quantised.folder} holds no graph to fine-tune: start the run anew, with another -o")
    return record
