"""What all engines that read Q/DQ share: from a graph, frames and a recipe to the quantised graph on disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import onnx
import onnxruntime

from emadeploy.build.graph import GRAPH_NAME, OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.insert import Types, insert, tensors_of
from emadeploy.calibrate.learned import learned_for
from emadeploy.calibrate.placement import Placement
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.table import Progress, ranges_of
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.plain import to_plain


class Place(Protocol):
    """The rules of an engine: where pairs stand in a model, given the layers to keep in higher precision."""

    def __call__(self, model: onnx.ModelProto, keep: Collection[str]) -> Placement: ...


def write_quantised(
    graph: OnnxGraph,
    frames: CalibrationFrames,
    recipe: Recipe,
    folder: Path,
    *,
    place: Place,
    types: Types,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> OnnxGraph:
    """Write ``graph`` with Q/DQ and its record into ``folder``; return the record. ``recipe`` is resolved.

    Ranges are those of the graph with nothing kept: they are found once, whatever ``keep`` says; or they are those that
    training has learned for the recipe's target. Raises CalibrationError for too few frames, a node to keep that is not
    there, values that are not finite, ranges that were learned for something else, a full disk.
    """
    frames.require(recipe)
    model = onnx.load(graph.path)
    placement = place(model, keep)
    everywhere, learned = place(model, ()), learned_for(graph, recipe)
    if learned is None:
        ranges = ranges_of(graph, model, tensors_of(model, everywhere), frames, recipe, progress)
    else:
        ranges = learned.ranges_of(model, everywhere, recipe)
    quantised = insert(model, placement, ranges, types)
    calibration = {
        "recipe": to_plain(recipe),
        "recipe_sha256": recipe.digest(),
        "frames": frames.facts(),
        "types": recipe.types,
        "rest": recipe.rest,
        "kept": list(placement.float_layers),
        **({} if learned is None else {"learned": dict(learned.facts)}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(quantised, folder / GRAPH_NAME)
        versions = {**graph.versions, "onnxruntime": onnxruntime.__version__}
        record = replace(graph, folder=folder, calibration=calibration, versions=versions)
        record.write()
    except OSError as error:
        raise CalibrationError(f"the graph cannot be written to {folder}: {error.strerror or error}") from None
    return record
