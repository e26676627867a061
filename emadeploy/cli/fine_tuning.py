"""Fine-tuning with fake quantisation put together: the target's graph and ranges, and the network that trains in them.

runs/NAME/int8    the graph with Q/DQ that the run started from; a resumed run reads it
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.learning import check_target, learning_of, prepare
from emadeploy.calibrate.recipe import Recipe, load_recipe
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.export.trainable.student import Student
from emadeploy.nets.network import Network
from emadeploy.train.fit import MakeStudent, check_tasks, starting_model
from emadeploy.train.run import Run, check_unused, step_to_resume

Report = Callable[[str], None]

GRAPH = "int8"
#: What a run is unless the command line says otherwise: short, and at a rate that moves trained weights a little.
STEPS, RATE, DISTIL = 200, 1e-4, 1.0


def fine_tuned(spec: ModelSpec, target: str, asked: Mapping[str, Any]) -> tuple[ModelSpec, dict[str, Any]]:
    """Return ``spec`` with the recipe for fine-tuning, and the fields 'qat', 'steps' and 'distil' of the run.

    ``spec`` has what the user ``asked`` for already; what that left open is short, at a low rate, with batch norms as
    they are. Raises SpecError for a target that cannot be fine-tuned for.
    """
    target = check_target(target)

    def given(name: str, otherwise: Any) -> Any:
        return otherwise if asked.get(name) is None else asked[name]

    recipe = replace(
        spec.train,
        learning_rate=given("learning_rate", RATE),
        precision=given("precision", "fp32"),
        batch_norm="frozen",
        schedule="cosine",
        warm_up_epochs=0.0,
    )
    steps = given("steps", STEPS if asked.get("epochs") is None else None)
    return replace(spec, train=recipe), {"qat": target, "steps": steps, "distil": given("distil", DISTIL)}


def make_student(run: Run, train_set: Dataset, *, resume: bool, report: Report = print) -> MakeStudent:
    """Return what makes the network that ``run`` trains, having made the graph of its target, or read it to resume.

    Raises SpecError for an output in use, or nothing to resume; DataError for data of another kind, before anything is
    traced; CalibrationError, ExportError; ArtifactError.
    """
    assert run.qat is not None
    check_tasks(run.spec, train_set, "training")
    target = run.qat
    folder = run.output / GRAPH
    if resume:
        step_to_resume(run)  # says what is wrong with the run, where something is
        quantised = OnnxGraph.read(folder)
    else:
        check_unused(run)
        quantised = _quantised(run, train_set, target, folder, report)
    record = learning_of(quantised)
    model = onnx.load(quantised.path)
    assert quantised.calibration is not None
    facts = {
        "target": target,
        "recipe": record["recipe"],
        "structure": record["structure"],
        "facts": {
            "by": f"emadeploy train --qat {target}",
            "data": run.train_data,
            "learning_rate": run.spec.train.learning_rate,
            "distil": run.distil,
            "started_from": quantised.calibration["frames"],
        },
    }

    def student(network: Network) -> Student:
        largest, symmetric = record["largest"], record["symmetric"]
        return Student(network, model, record["groups"], largest=largest, symmetric=symmetric, facts=facts)

    return student


def _quantised(run: Run, train_set: Dataset, target: str, folder: Path, report: Report) -> OnnxGraph:
    recipe = load_recipe(target).resolved()
    frames = _frames(run.spec, train_set, recipe)
    network = starting_model(run).eval()
    described = f"{run.start_from} (model {run.spec.name})"
    source = Source(network, described, {"model": run.spec.name, "checkpoint": str(run.start_from)})
    with tempfile.TemporaryDirectory(prefix="emadeploy-") as scratch:
        graph = export_graph(source, Wanted(low_precision=True), Path(scratch) / "graph", compared=1, report=report)
        report(f"calibrating {target} on {len(frames)} frames of {frames.description} (digest {frames.digest[:12]})")
        with progress("calibrating") as bar:
            return prepare(graph, frames, recipe, target, folder, bar)


def _frames(spec: ModelSpec, train_set: Dataset, recipe: Recipe) -> CalibrationFrames:
    """Return what ranges start from: the frames bundled for the model, else some of those that it is trained on."""
    try:
        return CalibrationFrames.bundled(spec, count=recipe.frames, minimum=recipe.minimum)
    except CalibrationError:
        return CalibrationFrames.from_dataset(train_set, recipe.frames, spec.input, minimum=recipe.minimum)
