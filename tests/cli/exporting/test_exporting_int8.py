"""The engine that is made again and again: what it remembers, keeps, and measures."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nncf")
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.cli.exporting import int8 as int8_module
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.contract.manifest import Manifest
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime import load

KEPT = "heads.depth.0.conv1/Conv"
TARGETS = ("openvino-int8", "onnxruntime-int8")


@pytest.fixture(params=TARGETS)
def int8(request, graph, frames, tmp_path: Path, report) -> Int8:
    # Kept layers in fp32: on any CPU, they leave no error behind.
    recipe = replace(load_recipe(request.param).resolved(), rest="fp32")
    return Int8(graph, frames, recipe, request.param, tmp_path / "scratch", report)


def test_what_was_made_last_is_not_made_again(int8, monkeypatch):
    made = []
    original = int8_module.quantizer(int8.engine)

    def counted(*arguments, keep, **named):
        made.append(keep)
        return original(*arguments, keep=keep, **named)

    monkeypatch.setattr(int8_module, "quantizer", lambda engine: counted)
    plain = int8.build(frozenset())
    assert int8.build(frozenset()) is plain
    other = int8.build(frozenset({KEPT}))
    assert made == [frozenset(), frozenset({KEPT})]
    assert KEPT in other.calibration["kept"]
    assert Manifest.read(int8.artifact) == other
    int8.build(frozenset())
    assert made[2:] == [frozenset()]


def test_units_are_all_layers_once(int8, graph):
    nodes = [node for unit in int8.units for node in unit.nodes]
    assert len(nodes) == len(set(nodes)) > 80
    assert KEPT in nodes
    assert {"backbone", "ctal.inter", "ctal.diffusion", "heads.depth"} <= {unit.section for unit in int8.units}


def test_keeping_everything_leaves_no_error_and_plain_int8_some(int8, told):
    plain = int8.probe(frozenset())
    everything = int8.probe(frozenset(node for unit in int8.units for node in unit.nodes))
    for task in ("semseg", "depth", "normals"):
        assert plain[task] > 1e-3
        assert everything[task] < 1e-4
    assert set(int8.measure(frozenset(), told)) == {"semseg", "depth", "normals"}
    assert int8.parity()["semseg"]["agreement"] < 100


def test_what_is_judged_is_what_was_built(int8, told):
    """The metrics of a search's result are those of the artifact that ships, measured as anybody would."""
    int8.build(frozenset({KEPT}))
    judged = int8.measure(frozenset({KEPT}), told)
    int8.close()
    with load(int8.artifact) as perception:
        record = evaluate(lambda frame: perception(frame).maps, told, perception.spec.tasks)
    assert judged == record["tasks"]
    assert KEPT in Manifest.read(int8.judged).calibration["kept"]
    assert judged != int8.measure(frozenset(), told)


def test_the_start_is_reported_with_the_frames(int8, lines, frames):
    assert lines == [f"calibrating {int8.target} on 16 frames of structured:0 (digest {frames.digest[:12]})"]
