"""`emadeploy export --target trt-int8`: as people call it, and how its graph is judged without a device."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnxruntime as ort
from networks import SIZE, tiny_graph
from PIL import Image

from emadeploy import runtime
from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half_integers import in_integers
from emadeploy.calibrate.half_rounding import rounded
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.judge import Judge
from emadeploy.cli.exporting.portable import TOLERANCE
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, TaskSpec
from emadeploy.data.sample import Sample
from emadeploy.runtime.machine import sums_bytes

RNG = np.random.default_rng(8)
PICTURES = [RNG.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(16)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))


def run(command: list[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_a_portable_artifact_without_any_library_of_nvidia(emadeploy_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index:02}.png")
    light = ("hps-cityscapes", "--untrained", "--size", "32x64", "--tasks", "depth")
    calibrated = ("--target", "trt-int8", "--calib-data", "images:pictures", "-o", "out")
    done = run(emadeploy_command, tmp_path, "export", *light, *calibrated)
    assert done.returncode == 0, done.stderr
    assert "portable: a strongly typed graph, " in done.stdout
    assert "to be compiled on the device by `emadeploy build`" in done.stdout
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.precision, manifest.audit, manifest.accuracy) == ({}, None, None)
    assert set(manifest.asked.values()) == {"int8"}
    assert manifest.calibration is not None
    assert manifest.calibration["types"] == "S8S8"

    shown = run(emadeploy_command, tmp_path, "inspect", "out")
    assert shown.returncode == 0, shown.stderr
    assert "not compiled" in shown.stdout
    record = json.loads(run(emadeploy_command, tmp_path, "inspect", "out", "--json").stdout)
    assert (record["compiled"], record["manifest"]["asked"]) == (False, dict(manifest.asked))
    assert manifest.rest == "fp16"
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
    assert {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8} <= types
    check_half(manifest)


def check_half(manifest: Manifest) -> None:
    assert manifest.calibration is not None
    half = manifest.calibration["half"]
    assert half["float32"] == [name for names in half["reasons"].values() for name in names]
    assert 0 < half["errors"]["depth"] <= half["bound"]


@pytest.mark.parametrize("target", ["trt-fp32", "trt-fp16", "trt-rtx-fp16", "trt-rtx-int8"])
def test_each_target_of_both_engines(emadeploy_command: list[str], tmp_path: Path, target: str) -> None:
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index:02}.png")
    light = ("hps-cityscapes", "--untrained", "--size", "32x64", "--tasks", "depth")
    frames = () if target.endswith("fp32") else ("--calib-data", "images:pictures")
    done = run(emadeploy_command, tmp_path, "export", *light, "--target", target, *frames, "-o", "out")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out")
    precision = target.rpartition("-")[2]
    assert (manifest.target, set(manifest.asked.values())) == (target, {precision})
    assert manifest.rest == ("fp32" if precision == "fp32" else "fp16")
    assert manifest.inputs[0].dtype == manifest.outputs[0].dtype == "float32"
    parity = manifest.parity["depth"]["raw_error"]
    if precision == "fp16":
        check_half(manifest)
        assert 1e-5 < parity <= TOLERANCE, "measured as float16 rounds"
        assert "every float16 result rounded" in manifest.graph["parity_reference"]
    else:
        assert parity < 1e-5


def test_whole_frames_go_in_as_bytes_and_come_out_as_labels(emadeploy_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index:02}.png")
    light = ("hps-cityscapes", "--untrained", "--size", "32x64", "--frame-size", "32x64")
    frames = ("--calib-data", "images:pictures")
    done = run(emadeploy_command, tmp_path, "export", *light, "--target", "trt-fp16", *frames, "-o", "out")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert {tensor.name: tensor.dtype for tensor in (*manifest.inputs, *manifest.outputs)} == {
        "frame": "uint8",
        "semseg": "uint8",
        "depth": "float32",
    }
    first = onnx.load(tmp_path / "out" / "model.onnx").graph.node[0]
    assert (first.op_type, first.input[0]) == ("Cast", "frame"), "TensorRT moves no unsigned bytes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "trt-fp32", "--calib-data", "images:pictures"), "--calib-data: for int8 and fp16 targets, and"),
        (("--target", "trt-fp16", "--max-drop", "depth=1%"), "--max-drop: for int8 targets alone; trt-fp16"),
        (("--target", "trt-fp16"), "no calibration frames are bundled for model"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_traced(
    emadeploy_command: list[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(emadeploy_command, tmp_path, "export", "hps-cityscapes", "--untrained", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "exporting" not in done.stdout


class Rooms:
    description, tasks, specs = "made:up val", ("depth",), (TaskSpec("depth"),)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), PICTURES[index], {"depth": np.full(SIZE, 2.0, np.float32)})


@pytest.fixture
def int8(tmp_path: Path) -> Int8:
    frames = CalibrationFrames(PICTURES, InputSpec(*SIZE), "made:up train")
    graph = tiny_graph(tmp_path / "graph")
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(graph.path)), graph.path)
    graph.write()
    return Int8(graph, frames, load_recipe("trt-int8").resolved(), "trt-int8", tmp_path, lambda _: None)


def raw(artifact: Path) -> np.ndarray:
    with runtime.load(artifact, threads=1) as perception:
        return perception.raw(PICTURES[0])["depth"]


def plain(model: onnx.ModelProto) -> np.ndarray:
    """Run a graph node by node, as it says, without any layer fused."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": preprocess(PICTURES[0], InputSpec(*SIZE))})[0]


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_it_is_judged_by_what_its_graph_says(int8: Int8, rest: str) -> None:
    int8.recipe = replace(int8.recipe, rest=rest)
    manifest = int8.build(frozenset())
    assert manifest.rest == rest
    shipped = onnx.load(int8.artifact / "model.onnx")
    has_half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in shipped.graph.initializer)
    assert has_half == (rest == "fp16")
    assert int8.judged != int8.artifact
    says = rounded(shipped)
    wanted, found = plain(in_integers(says) if sums_bytes() else says), raw(int8.judged)
    largest = np.abs(wanted).max()
    # A value on the edge between two bytes may fall to either side: layers that are fused add up in another order.
    assert np.mean(np.abs(found - wanted) > 1e-3 * largest) < 0.02
    without = plain(onnx.load(int8.graph.path))
    assert np.abs(wanted - without).max() > 1e-3 * largest, "rounding must be seen"


def test_what_is_kept_is_judged_in_float(int8: Int8) -> None:
    int8.build(frozenset())
    before = raw(int8.judged)
    layers = frozenset(node for unit in int8.units for node in unit.nodes)
    int8.build(layers)
    assert not any("Quantize" in node.op_type for node in onnx.load(int8.judged / "model.onnx").graph.node)
    assert np.abs(raw(int8.judged) - before).max() > 0


def test_the_manifest_says_where_its_accuracy_was_measured(int8: Int8, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = parse_budgets("depth=1000%", ("depth",))
    reference = {"tasks": {"depth": {"abs": 1e6, "rel": 1e6, "rmse": 1e6}}, "measured": "elsewhere"}
    monkeypatch.setattr(Judge, "reference", lambda *_: reference)
    manifest = Judge(Rooms(), budgets, 3).keep_within_budgets(int8, None, lambda _: None)
    assert manifest == Manifest.read(int8.artifact)
    assert not manifest.compiled
    assert manifest.accuracy is not None
    assert manifest.accuracy["measured_in"].startswith("ONNX Runtime on the CPU, from the same graph")
    assert (manifest.accuracy["data"], manifest.accuracy["frames"]) == ("made:up val", 2)
    assert manifest.accuracy["tasks"]["depth"]["rel"] > 0
    assert manifest.accuracy["float32_measured"] == "elsewhere"
