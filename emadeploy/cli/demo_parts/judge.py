"""The demo's judgement: the maps of an artifact, their metrics on rooms and on the photograph, and how two agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Sample

Maps = Mapping[str, npt.NDArray[Any]]


def answer(artifact: Path, samples: Sequence[Sample], progress: Callable[[int, int], None]) -> list[Maps]:
    """Return the decoded maps of every sample, by task. Raises as `emadeploy.load` and a call of it do."""
    from emadeploy import load

    answers: list[Maps] = []
    with load(artifact) as perception:
        for sample in samples:
            answers.append(perception(sample.image).maps)
            progress(len(answers), len(samples))
    return answers


def metrics(spec: ModelSpec, answers: Sequence[Maps], samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return the metrics over ``samples``, by task and name, as `eval --json` has them."""
    from emadeploy.evaluate.metrics import Metrics

    tally = Metrics(spec.tasks)
    for maps, sample in zip(answers, samples, strict=True):
        tally.update(maps, sample.truth)
    return tally.compute()


def photograph_metrics(spec: ModelSpec, maps: Maps, sample: Sample) -> dict[str, float]:
    """Return the depth metrics of one photograph in metres: 'abs', 'rel', 'rmse', and 'rel_scaled'.

    'rel_scaled' is 'rel' after the prediction is multiplied by median(truth) / median(prediction), over the judged
    pixels: the photograph's camera has another focal length than the training's, and one picture cannot tell a long
    lens from a near object. Absent where the median of the prediction is 0. Nothing where the model has no depth in
    metres.
    """
    if "depth" not in sample.truth or "depth" not in maps or spec.task("depth").unit != "metre":
        return {}
    depth_HW, truth_HW = maps["depth"], sample.truth["depth"]
    found = metrics(spec, [maps], [sample])["depth"]
    chosen = {name: found[name] for name in ("abs", "rel", "rmse")}
    judged_HW = truth_HW > 0
    median = float(np.median(depth_HW[judged_HW]))
    if median > 0:
        scaled = dict(maps, depth=depth_HW * np.float32(np.median(truth_HW[judged_HW]) / median))
        chosen["rel_scaled"] = metrics(spec, [scaled], [sample])["depth"]["rel"]
    return chosen


def agreement(spec: ModelSpec, candidate: Sequence[Maps], reference: Sequence[Maps]) -> dict[str, dict[str, float]]:
    """Return how far the maps agree, by task and name: see `evaluate.parity.Parity`."""
    from emadeploy.evaluate.parity import Parity

    tally = Parity(spec.tasks)
    for ours, theirs in zip(candidate, reference, strict=True):
        tally.update(ours, theirs)
    return tally.compute()
