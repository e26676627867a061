"""What an int8 engine is judged by, and the search for what holds the budgets on a real engine."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("nncf")
import onnx

from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.outcome import BudgetError
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.calibrate.search import keep_within
from emadeploy.cli.exporting import judge as judge_module
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.judge import Judge, open_judge
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.errors import CalibrationError, DataError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.export.stage import Wanted
from emadeploy.runtime import load
from emadeploy.runtime.machine import cpu_flags

TASKS = ("semseg", "depth", "normals")
RECIPE = load_recipe("openvino-int8").resolved()


def judge_of(told, text: str, evaluations: int = 6) -> Judge:
    return Judge(told, parse_budgets(text, TASKS, RECIPE.budgets), evaluations)


def int8_of(graph, frames, folder: Path, target: str = "openvino-int8") -> Int8:
    return Int8(graph, frames, load_recipe(target).resolved(), target, folder / "scratch", lambda _: None)


def test_the_reference_is_measured_once_per_checkpoint(source, told, tmp_path, lines, report, cache):
    judge = judge_of(told, "semseg=1")
    first = judge.reference(source, TASKS, tmp_path / "one", report)
    assert first["tasks"]["semseg"]["miou"] > 90
    assert len(lines) == 1
    assert lines[0].startswith("evaluating float32 on told:8 (4 frames)")
    again = judge.reference(source, TASKS, tmp_path / "two", report)
    assert again == json.loads(json.dumps(first))
    assert (len(lines), (tmp_path / "two").exists()) == (1, False)
    other = replace(source, record={**source.record, "sha256": "1" * 64})
    judge.reference(other, TASKS, tmp_path / "three", report)
    assert len(lines) == 2
    for path in (cache / "reference").iterdir():
        path.write_text("{")
    judge.reference(source, TASKS, tmp_path / "four", report)
    assert len(lines) == 3


def test_the_reference_is_measured_again_where_the_same_place_holds_other_data(source, told, tmp_path, lines, report):
    judge_of(told, "semseg=1").reference(source, TASKS, tmp_path / "one", report)
    sample = told[0]
    darker = replace(sample, image=(sample.image // 2).astype(np.uint8))

    class Altered(type(told)):
        def __init__(self) -> None:
            self.description, self.tasks, self.specs = told.description, told.tasks, told.specs
            self.samples = [darker, *told.samples[1:]]

    judge_of(Altered(), "semseg=1").reference(source, TASKS, tmp_path / "two", report)
    assert len(lines) == 2


def test_generous_budgets_hold_in_plain_int8(source, graph, frames, told, tmp_path, lines, report, capsys):
    judge = judge_of(told, "semseg=100,depth=1000%,normals=180deg")
    int8 = int8_of(graph, frames, tmp_path)
    manifest = judge.keep_within_budgets(int8, source, report)
    assert Manifest.read(int8.artifact) == manifest
    budget = manifest.calibration["budget"]
    assert (budget["kept"], budget["evaluations"], budget["probes"]) == ([], 1, 0)
    assert budget["history"][0]["held"] is True
    assert set(manifest.calibration["parity_with_float"]["tasks"]) == set(TASKS)
    assert (manifest.accuracy["data"], manifest.accuracy["frames"]) == ("told:8", 4)
    assert manifest.accuracy["float32"]["semseg"]["miou"] > 90
    assert manifest.accuracy["float32_measured"] == "where it was exported"
    assert len(int8.seen) == len(told)
    assert set(manifest.accuracy["tasks"]) == set(TASKS)
    assert "every budget holds in plain int8" in capsys.readouterr().out


def test_a_tight_budget_keeps_layers_and_the_engine_really_runs_them_higher(
    source, graph, frames, told, tmp_path, report, capsys, monkeypatch
):
    monkeypatch.setattr(judge_module, "keep_within", partial(keep_within, probes=16))
    int8 = int8_of(graph, frames, tmp_path)
    reference = judge_of(told, "semseg=1").reference(source, TASKS, tmp_path, report)["tasks"]
    plain = int8.measure(frozenset(), told)
    lost = reference["semseg"]["miou"] - plain["semseg"]["miou"]
    assert lost > 0.1, "the network loses nothing in int8: the test needs another"
    judge = judge_of(told, f"semseg={0.6 * lost:.3f},depth=1000%,normals=180deg")
    manifest = judge.keep_within_budgets(int8, source, report)
    budget = manifest.calibration["budget"]
    assert budget["kept"]
    assert 2 <= budget["evaluations"] <= 6
    assert 0 < budget["probes"] <= 16
    assert 0 < budget["kept_share"] < 1
    assert reference["semseg"]["miou"] - manifest.accuracy["tasks"]["semseg"]["miou"] <= 0.6 * lost + 1e-3
    nodes = {node for unit in budget["kept"] for node in unit["nodes"]}
    assert nodes <= set(manifest.calibration["kept"])
    rest = "bf16" if {"avx512_bf16", "amx_bf16"} & set(cpu_flags()) else "fp32"
    assert (manifest.rest, manifest.calibration["rest"]) == (rest, rest)
    compute = manifest.audit["total"]["compute"]
    assert compute["int8"] > 0
    assert compute[rest] >= len(nodes)
    with load(int8.artifact) as perception:
        assert perception.describe()["rest"] == rest
    assert "in higher precision" in capsys.readouterr().out


def test_budgets_that_cannot_hold_show_the_nearest(source, graph, frames, told, tmp_path, report, capsys, monkeypatch):
    monkeypatch.setattr(judge_module, "keep_within", partial(keep_within, probes=16))
    judge = judge_of(told, "semseg=0,depth=0%,normals=0deg", evaluations=2)
    with pytest.raises(BudgetError, match="do not hold in int8"):
        judge.keep_within_budgets(int8_of(graph, frames, tmp_path), source, report)
    assert "nearest to the budgets" in capsys.readouterr().out


def test_a_graph_that_breaks_a_budget_before_it_is_rounded_is_told_from_one_that_does_not(
    source, graph, frames, told, tmp_path, report
):
    # As kernels that were left out: the graph is not quite the network.
    model = onnx.load(graph.path)
    [weight] = [tensor for tensor in model.graph.initializer if tensor.name == "heads.depth.0.conv1.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(1.2 * onnx.numpy_helper.to_array(weight), weight.name))
    other = replace(graph, folder=tmp_path / "other")
    other.folder.mkdir()
    onnx.save(model, other.path)

    exact, changed = int8_of(graph, frames, tmp_path / "a"), int8_of(other, frames, tmp_path / "b")
    closed = []
    changed.close = lambda: closed.append(True)
    tight = judge_of(told, "semseg=0.1,depth=0.1%,normals=0.1deg")
    assert tight.holds_in_float(exact, source, report)
    assert not tight.holds_in_float(changed, source, report)
    assert closed, "an engine that was tried out stays open, and its files are about to be written anew"
    assert judge_of(told, "semseg=0.1,depth=1000%,normals=0.1deg").holds_in_float(changed, source, report)


ROOMS = ModelSpec("made", "emanet", tuple(map(TaskSpec, ("depth", "normals"))), InputSpec(64, 96), data="rooms")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the DATA that was opened: all of it has truth for depth and normals."""
    seen: list[str] = []

    def open_now(text: str) -> SimpleNamespace:
        seen.append(text)
        tasks = () if text.startswith("images:") else ("depth", "normals")
        frame = "dataset" if text.startswith("nyuv2:release") else "camera_optical"
        specs = tuple(TaskSpec(task, frame=frame if task == "normals" else None) for task in tasks)
        return SimpleNamespace(description=f"{text} val", tasks=tasks, specs=specs)

    monkeypatch.setattr(judge_module, "open_now", open_now)
    return seen


def judged(spec: ModelSpec = ROOMS, **order: object) -> Judge | None:
    return open_judge(SimpleNamespace(spec=spec), Order(target="openvino-int8", **order), RECIPE)


def test_a_model_of_rooms_is_judged_on_rooms_of_its_size(opened):
    found = judged()
    assert opened == ["rooms:seed=7,count=200,size=64x96"]
    assert (found.evaluations, found.budgets.tasks) == (RECIPE.evaluations, ("depth", "normals"))
    assert found.usual, "bundled frames are of rooms too"
    assert not judged(calib_data="images:kitchen").usual


def test_other_models_are_judged_on_what_was_given(opened):
    other = replace(ROOMS, data="")
    assert judged(other, calib_data="nyuv2:here").usual
    assert not judged(other, calib_data="nyuv2:here", data="nyuv2:there").usual
    assert opened == ["nyuv2:here", "nyuv2:there"]
    with pytest.raises(
        CalibrationError, match="nothing to judge int8 by; give labelled DATA with --data, or go without"
    ):
        judged(other)


def test_nothing_is_judged_where_nobody_wants_it_or_weights_are_random(opened):
    assert judged(max_drop="none") is None
    assert judged(untrained=True) is None
    for why in ({"max_drop": "none"}, {"untrained": True}):
        with pytest.raises(CalibrationError, match="--data rooms: nothing is judged with"):
            judged(data="rooms", **why)
    assert opened == []


def test_data_without_truth_and_budgets_without_sense_are_refused(opened):
    with pytest.raises(CalibrationError, match="images:here val has no truth for depth, normals"):
        judged(data="images:here")
    for text in ("depth", "depth=two", "edge=1"):
        with pytest.raises(SpecError):
            judged(max_drop=text)
    assert opened == ["images:here"]


def test_truth_of_another_meaning_is_refused_before_anything_is_built(opened):
    says = "nyuv2:release val and the model differ in normals: the frame is dataset in the data"
    with pytest.raises(DataError, match=says):
        judged(data="nyuv2:release")
    assert judged(data="nyuv2:release", wanted=Wanted(tasks=("depth",))) is not None
