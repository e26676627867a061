"""The quantised EMA-Net of each engine that reads Q/DQ: what runs in int8, how far it is off, what the record says."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from emadeploy.build.graph import OnnxGraph
from emadeploy.build.tensorrt_rules import check_rules
from emadeploy.calibrate import onnxruntime as for_onnxruntime
from emadeploy.calibrate import table
from emadeploy.calibrate import tensorrt as for_tensorrt
from emadeploy.calibrate.placement import COMPUTE
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.contract.errors import BuildError, CalibrationError
from emadeploy.contract.outputs import decode
from emadeploy.evaluate.parity import Parity, raw_error

ENGINES = {"onnxruntime-int8": for_onnxruntime, "trt-int8": for_tensorrt}
KEPT = "heads.depth.0.conv1/Conv"
each_engine = pytest.mark.parametrize("target", list(ENGINES))


def recipe_of(target: str, **changes):
    recipe = replace(load_recipe(target), **changes)
    # The same types on whatever machine the tests run.
    return replace(recipe, types="U8S8") if target == "onnxruntime-int8" else recipe


@pytest.fixture(scope="module")
def quantised(emanet, frames, tmp_path_factory):
    """Return the function that quantises the small EMA-Net for a target, once per arguments."""
    done: dict[object, OnnxGraph] = {}

    def make(target: str, keep: tuple[str, ...] = (), **changes) -> OnnxGraph:
        key = (target, keep, *changes.items())
        if key not in done:
            folder = tmp_path_factory.mktemp("quantised")
            done[key] = ENGINES[target].quantize(emanet, frames, recipe_of(target, **changes), folder, keep=keep)
        return done[key]

    return make


def session(path: Path, optimised: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(graph: OnnxGraph, images) -> list[dict[str, np.ndarray]]:
    engine = session(graph.path)
    names = [output.name for output in graph.outputs]
    return [dict(zip(names, engine.run(names, {"image": image}), strict=True)) for image in images]


@each_engine
def test_both_products_of_ctal_multiply_bytes(quantised, target):
    model = onnx.load(quantised(target).path)
    maker = {made: node.op_type for node in model.graph.node for made in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and "spatial_att" in node.name]
    assert {node.name.split("spatial_att.")[1].split(".")[0] for node in products} == {"gather", "spread"}
    for node in products:
        assert [maker[name] for name in node.input] == ["DequantizeLinear"] * 2


@each_engine
def test_every_layer_that_is_not_kept_reads_bytes_and_has_byte_weights(quantised, target):
    graph = quantised(target)
    model = onnx.load(graph.path)
    maker = {made: node for node in model.graph.node for made in node.output}
    layers = [node for node in model.graph.node if node.op_type in COMPUTE]
    assert len(layers) > 80
    for node in layers:
        in_bytes = [name in maker and maker[name].op_type == "DequantizeLinear" for name in node.input[:2]]
        assert all(in_bytes) if node.name not in graph.kept else not in_bytes[1], node.name


def test_tensorrts_graph_is_symmetric_without_int32_and_without_bytes_before_a_resize(quantised):
    model = onnx.load(quantised("trt-int8").path)
    zeros = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    maker = {made: node for node in model.graph.node for made in node.output}
    for node in model.graph.node:
        if node.op_type.endswith("uantizeLinear"):
            assert zeros[node.input[2]].dtype == np.int8
            assert not zeros[node.input[2]].any()
        if node.op_type == "Resize":
            assert maker[node.input[0]].op_type != "DequantizeLinear"


def test_tensorrts_graph_keeps_the_rules_that_its_builder_checks(quantised):
    check_rules(onnx.load(quantised("trt-int8").path))
    with pytest.raises(BuildError):
        check_rules(onnx.load(quantised("onnxruntime-int8").path))


def test_onnxruntime_runs_every_layer_in_int8_but_those_that_answer(quantised, tmp_path):
    graph = quantised("onnxruntime-int8")
    session(graph.path, tmp_path / "optimised.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    wanted = Counter(node.op_type for node in onnx.load(graph.path).graph.node)
    assert graph.kept == {"heads.semseg.2/Conv", "heads.depth.2/Conv", "heads.normals.2/Conv"}
    assert found["QLinearConv"] == wanted["Conv"] - len(graph.kept)
    assert found["QLinearMatMul"] + found["MatMulIntegerToFloat"] == wanted["MatMul"]
    assert found["Conv"] + found["FusedConv"] == len(graph.kept)


@each_engine
def test_answers_stay_near_those_in_float_on_frames_it_was_not_calibrated_on(emanet, make_frames, quantised, target):
    images = list(make_frames(4, seed=9))
    tasks = emanet.model.tasks
    parity = Parity(tasks)
    wanted, found = answers(emanet, images), answers(quantised(target), images)
    for reference, candidate in zip(wanted, found, strict=True):
        for task in tasks:
            assert 1e-4 < raw_error(candidate[task.name], reference[task.name]) < 0.25, task.name
        decoded = [{t.name: decode(maps[t.name], t, (64, 96)) for t in tasks} for maps in (candidate, reference)]
        parity.update(*decoded)
    # Random weights decide nothing clearly: neighbouring classes differ by as much as one level of a byte.
    computed = parity.compute()
    assert computed["semseg"]["agreement"] > 80
    assert computed["normals"]["mean"] < 10


@each_engine
@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_other_methods_make_other_graphs_that_answer_too(emanet, make_frames, quantised, target, method):
    graph = quantised(target, method=method, percentile=99.9 if method == "percentile" else None)
    [wanted], [found] = (answers(g, [next(iter(make_frames(2, seed=9)))]) for g in (emanet, graph))
    assert all(raw_error(found[task], wanted[task]) < 0.3 for task in wanted)


@each_engine
def test_a_kept_layer_stays_in_float_and_ranges_are_found_once(emanet, frames, target, tmp_path, monkeypatch):
    runs = []
    observe = table.observe
    monkeypatch.setattr(table, "observe", lambda *args, **options: runs.append(1) or observe(*args, **options))
    quantize, recipe = ENGINES[target].quantize, recipe_of(target, method="minmax", percentile=None)
    all_int8 = quantize(emanet, frames, recipe, tmp_path / "int8")
    kept = quantize(emanet, frames, recipe, tmp_path / "kept", keep=[KEPT])
    assert runs == [1]
    assert kept.kept == all_int8.kept | {KEPT}
    weights = [tensor.name for tensor in onnx.load(kept.path).graph.initializer]
    assert "heads.depth.0.conv1.weight" in weights
    assert "heads.depth.0.conv1.weight" not in [t.name for t in onnx.load(all_int8.path).graph.initializer]


@each_engine
def test_keeping_every_layer_gives_the_answers_in_float(emanet, make_frames, frames, target, tmp_path):
    keep = [node.name for node in onnx.load(emanet.path).graph.node if node.op_type in COMPUTE]
    recipe = recipe_of(target, method="minmax", percentile=None)
    graph = ENGINES[target].quantize(emanet, frames, recipe, tmp_path, keep=keep)
    images = list(make_frames(2, seed=9))
    for reference, candidate in zip(answers(emanet, images), answers(graph, images), strict=True):
        assert all(raw_error(candidate[task], reference[task]) < 1e-5 for task in reference)
    assert {node.op_type for node in onnx.load(graph.path).graph.node}.isdisjoint({"QuantizeLinear"})


@each_engine
def test_the_record_says_how_it_was_quantised(emanet, frames, quantised, target):
    graph = quantised(target)
    assert OnnxGraph.read(graph.folder) == graph
    said = json.loads((graph.folder / "model.json").read_text())["calibration"]
    recipe = recipe_of(target)
    assert said["recipe_sha256"] == recipe.digest()
    assert said["recipe"]["target"] == target
    assert said["frames"] == frames.facts()
    assert said["types"] == {"onnxruntime-int8": "U8S8", "trt-int8": "S8S8"}[target]
    assert said["rest"] == {"onnxruntime-int8": "fp32", "trt-int8": "fp16"}[target]
    assert graph.model == emanet.model


def test_what_auto_became_is_recorded(emanet, frames, tmp_path):
    recipe = load_recipe("onnxruntime-int8")
    graph = for_onnxruntime.quantize(emanet, frames, recipe, tmp_path)
    assert recipe.types == "auto"
    assert graph.calibration["types"] == recipe.resolved().types


@each_engine
def test_too_few_frames_and_unknown_layers_are_refused_before_anything_is_written(
    emanet, frames, make_frames, target, tmp_path
):
    quantize, recipe = ENGINES[target].quantize, recipe_of(target)
    folder = tmp_path / "none"
    with pytest.raises(CalibrationError, match="found 3 frames, needed at least 16"):
        quantize(emanet, make_frames(3), recipe, folder)
    with pytest.raises(CalibrationError, match="cannot keep 'nowhere/Conv' in higher precision"):
        quantize(emanet, frames, recipe, folder, keep=["nowhere/Conv"])
    assert not folder.exists()


@each_engine
def test_a_place_that_cannot_be_written_is_named(emanet, frames, target, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = recipe_of(target, method="minmax", percentile=None)
    with pytest.raises(CalibrationError, match=r"the graph cannot be written to .*file"):
        ENGINES[target].quantize(emanet, frames, recipe, tmp_path / "file")
