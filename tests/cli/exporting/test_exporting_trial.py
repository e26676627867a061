"""An engine that is tried out answers as the artifact that is built of the same graph."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nncf")
from shortened import SIZE, structured

from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate import quantizer
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.cli.exporting.trial import open_trial
from emadeploy.contract.errors import BuildError
from emadeploy.runtime import Runtime, load

TARGET = "openvino-int8"
KEPT = "heads.depth.0.conv1/Conv"
FRAME = structured(1, SIZE, seed=5)[0]


def quantised(graph: OnnxGraph, frames: Any, folder: Path, keep: Collection[str] = ()) -> OnnxGraph:
    return quantizer("openvino")(graph, frames, load_recipe(TARGET).resolved(), folder, keep=keep)


def answers(perception: Runtime) -> dict[str, Any]:
    with perception:
        return dict(perception.raw(FRAME))


def test_it_answers_as_what_is_built_with_layers_kept_and_without(graph, frames, tmp_path):
    found = {}
    for keep in ((), (KEPT,)):
        made = quantised(graph, frames, tmp_path / f"int8-{len(keep)}", keep)
        artifact = tmp_path / f"artifact-{len(keep)}"
        manifest = builder("openvino")(made, artifact, TARGET)
        trial = open_trial(made, TARGET)
        assert (trial.manifest.rest, trial.spec) == (manifest.rest, manifest.model)
        tried, built = answers(trial), answers(load(artifact))
        assert tried.keys() == built.keys() == set(graph.model.task_names)
        for task, values in tried.items():
            np.testing.assert_array_equal(values, built[task], task)
        found[keep] = tried
    # The layer kept is of the depth alone; that of the other tasks stays as it was.
    assert np.any(found[()]["depth"] != found[(KEPT,)]["depth"])


def test_it_leaves_nothing_behind(graph, frames, tmp_path, cache):
    made = quantised(graph, frames, tmp_path / "int8")
    before = sorted(path for path in [*tmp_path.rglob("*"), *cache.rglob("*")])
    answers(open_trial(made, TARGET))
    assert sorted(path for path in [*tmp_path.rglob("*"), *cache.rglob("*")]) == before


def test_a_graph_that_is_not_quantised_is_refused(graph, frames, tmp_path):
    with pytest.raises(BuildError, match="this graph is not quantised: calibrate it first"):
        open_trial(graph, TARGET)
    made = quantised(graph, frames, tmp_path / "int8")
    with pytest.raises(BuildError, match="this graph is not quantised: calibrate it first"):
        open_trial(replace(made, calibration=None), TARGET)
    made.ir_path.unlink()
    with pytest.raises(BuildError, match="int8: this graph is not quantised"):
        open_trial(made, TARGET)
