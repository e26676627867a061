"""OpenVINO: ranges and fake quantisation by NNCF, on OpenVINO's form of the graph.

NNCF runs once per graph, frames and recipe; what it finds is cached. What a budget keeps in higher precision is taken
out of its result (`fakes.release`), which costs a second and not a calibration.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nncf
import numpy.typing as npt
import openvino as ov
from nncf.openvino.quantization.backend_parameters import BackendParameters
from nncf.quantization.range_estimator import (
    AggregatorType,
    RangeEstimatorParameters,
    RangeEstimatorParametersSet,
    StatisticsCollectorParameters,
    StatisticsType,
)

from emadeploy import __version__
from emadeploy.build.graph import IR_NAME, OnnxGraph
from emadeploy.calibrate import fakes
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.recipe import REDUCED, Recipe
from emadeploy.calibrate.table import Progress, cache_folder
from emadeploy.contract.cache import CHOOSE_CACHE
from emadeploy.contract.errors import CalibrationError, EmadeployError, first_line
from emadeploy.contract.manifest import file_digest
from emadeploy.contract.plain import to_plain

#: What stays out: the camera's frame before it is an image, and all that is done to raw maps.
_NEVER = [r"frame/.*", r"frame\..*", r"decode\..*", r"outputs\..*"]


def quantize(
    graph: OnnxGraph,
    frames: CalibrationFrames,
    recipe: Recipe,
    folder: Path,
    *,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> OnnxGraph:
    """Write ``graph`` with fake quantisation into ``folder``, as OpenVINO's IR beside the ONNX graph.

    Returns its record. ``keep`` names nodes that stay in the recipe's ``rest``. ``progress`` is called with the number
    of frames that NNCF has asked for, and of all.

    Raises CalibrationError where the frames do not fit the graph, a kept node is not in it or cannot be kept alone, or
    NNCF fails.
    """
    frames.require(recipe)
    recipe = recipe.resolved()
    model = _read(_base(graph, frames, recipe, progress))
    depthwise = fakes.depthwise_nodes(model)
    fakes.release(model, set(keep) - depthwise)
    fakes.compress_weights(model)
    calibration = {
        "recipe": to_plain(recipe),
        "recipe_sha256": recipe.digest(),
        "frames": frames.facts(),
        "types": recipe.types,
        # Without kept layers, what remains in float is too little to gain from bf16, which not every CPU has.
        "rest": recipe.rest if keep else "fp32",
        "kept": sorted({*keep, *depthwise}),
    }
    quantised = replace(
        graph,
        folder=folder,
        calibration=calibration,
        versions={**graph.versions, "nncf": nncf.__version__, "openvino": ov.__version__.split("-")[0]},
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(graph.path, folder / graph.path.name)
        ov.save_model(model, folder / IR_NAME, compress_to_fp16=False)
        quantised.write()
    except (OSError, RuntimeError) as error:
        raise CalibrationError(f"the graph cannot be written to {folder}: {first_line(error)}") from error
    return quantised


def _read(path: Path) -> ov.Model:
    try:
        return ov.Core().read_model(path)
    except RuntimeError as error:
        raise CalibrationError(
            f"{path} was kept from an earlier calibration and is damaged: delete {path.parent}"
        ) from error


def _base(graph: OnnxGraph, frames: CalibrationFrames, recipe: Recipe, progress: Progress | None) -> Path:
    """Return the graph as NNCF quantises it, nothing kept, weights still in float32: from the cache, or made now."""
    made_by = (__version__, ov.__version__, nncf.__version__)
    key = "|".join((file_digest(graph.path), frames.digest, recipe.digest(), *made_by))
    place = cache_folder() / f"openvino-{hashlib.sha256(key.encode()).hexdigest()}"
    if (place / IR_NAME).is_file():
        return place / IR_NAME
    model = _calibrated(graph, frames, recipe, progress)
    unfinished = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        ov.save_model(model, unfinished / IR_NAME, compress_to_fp16=False)
        with contextlib.suppress(OSError):  # another process was first
            unfinished.rename(place)
    except (OSError, RuntimeError) as error:
        raise CalibrationError(f"{place} cannot be written: {first_line(error)}; {CHOOSE_CACHE}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place / IR_NAME


def _calibrated(graph: OnnxGraph, frames: CalibrationFrames, recipe: Recipe, progress: Progress | None) -> ov.Model:
    advanced = nncf.AdvancedQuantizationParameters(
        # NNCF spends 7 bits on the first layer's weights where nobody objects: half of all the harm, for emanet-rooms.
        overflow_fix=nncf.OverflowFix.FIRST_LAYER if recipe.types == REDUCED else nncf.OverflowFix.DISABLE,
        activations_range_estimator_params=_ranges(recipe),
        # Weights stay in float32 until it is known which layers do.
        backend_params={BackendParameters.COMPRESS_WEIGHTS: False},
    )
    feeds = _Feeds(graph, frames, progress)
    model = ov.Core().read_model(graph.path)
    try:
        with _quiet():
            model = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(frames),
                ignored_scope=nncf.IgnoredScope(names=_in_float(model), patterns=_NEVER, validate=False),
                advanced_parameters=advanced,
            )
    except EmadeployError:
        raise
    except Exception as error:
        raise CalibrationError(f"nncf {nncf.__version__} cannot quantise {graph.path}: {first_line(error)}") from error
    fakes.hoist(model)
    return model


def _in_float(model: ov.Model) -> list[str]:
    """Return OpenVINO's names of the depthwise convolutions, which its compiler runs in float whatever they are given.

    In CTAL on a basis they filter the features: 0.1 % of the arithmetic.
    """
    depthwise = fakes.depthwise_nodes(model)
    return [node.get_friendly_name() for name, node in fakes.compute_nodes(model).items() if name in depthwise]


def _ranges(recipe: Recipe) -> Any:
    """Return NNCF's words for the recipe's method."""
    if recipe.method == "minmax":
        return RangeEstimatorParametersSet.MINMAX
    assert recipe.percentile is not None
    outliers = 1 - recipe.percentile / 100
    quantile = partial(
        StatisticsCollectorParameters,
        statistics_type=StatisticsType.QUANTILE,
        aggregator_type=AggregatorType.MEAN,
        quantile_outlier_prob=outliers,
    )
    return RangeEstimatorParameters(min=quantile(), max=quantile())


class _Feeds:
    """The frames as NNCF wants them: to be gone through as often as it likes."""

    def __init__(self, graph: OnnxGraph, frames: CalibrationFrames, progress: Progress | None) -> None:
        self.tensor, self.frames, self.progress = graph.inputs[0], frames, progress
        self.passes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for index, feed in enumerate(self.frames.feeds(self.tensor)):
            # The first pass collects ranges; later ones, which correct biases, go through fewer frames.
            if self.progress is not None and not self.passes:
                self.progress(index + 1, len(self.frames))
            yield feed
        self.passes += 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back NNCF's own progress bars and its remarks."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
