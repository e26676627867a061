"""ONNX Runtime on CPUs: Q/DQ that its QLinear kernels take up, in the types that the CPU multiplies fast."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.insert import Types
from emadeploy.calibrate.placement import place_for_onnxruntime
from emadeploy.calibrate.qdq import Place, write_quantised
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.table import Progress

#: Types of a recipe -> the type of activations, the largest weight. 64: two products of 255 x 64 fit into 16 bits.
_INTEGERS = {"U8S8": ("uint8", 127), "U8S8-reduced": ("uint8", 64), "S8S8": ("int8", 127)}


def quantize(
    graph: OnnxGraph,
    frames: CalibrationFrames,
    recipe: Recipe,
    folder: Path,
    *,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> OnnxGraph:
    """Write ``graph`` with Q/DQ for ONNX Runtime into ``folder``; return its record.

    ``keep`` names layers (Conv, Gemm, MatMul) that stay in float, beside those whose results are answers: all of them
    stand in the record's 'kept'. ``progress`` is called with the number of frames run, and of all. Raises
    CalibrationError, as `write_quantised`.
    """
    recipe = recipe.resolved()
    place, types = rules(recipe)
    return write_quantised(
        graph,
        frames,
        recipe,
        folder,
        place=place,
        types=types,
        keep=keep,
        progress=progress,
    )


def rules(recipe: Recipe) -> tuple[Place, Types]:
    """Return where pairs stand, and the integers, by a resolved recipe."""
    activation, largest = _INTEGERS[recipe.types]
    place = partial(place_for_onnxruntime, symmetric=recipe.symmetric)
    return place, Types(activation, recipe.symmetric, largest, recipe.weights == "per_channel", bias=True)
