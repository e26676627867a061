"""TensorRT 8 to 11, and TensorRT for RTX: explicit Q/DQ, symmetric int8 alone, biases in float."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.insert import Types
from emadeploy.calibrate.placement import place_for_tensorrt
from emadeploy.calibrate.qdq import write_quantised
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.table import Progress


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

    Floats of the graph stay float32: the builder makes them what the recipe's ``rest`` says. ``keep`` names layers
    (Conv, Gemm, MatMul) that stay in it. ``progress`` is called with the number of frames run, and of all. Raises
    CalibrationError, as `write_quantised`.
    """
    types = Types("int8", True, per_channel=recipe.weights == "per_channel")
    return write_quantised(
        graph, frames, recipe, folder, place=place_for_tensorrt, types=types, keep=keep, progress=progress
    )
