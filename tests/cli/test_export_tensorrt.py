"""`emadeploy export --target trt-int8`: as people call it, and how its graph is judged without a device."""

import json
import subprocess
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
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.cli.exporting.int8 import Int8
from emadeploy.cli.exporting.judge import Judge
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec
from emadeploy.data.sample import Sample

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
    assert "portable: a graph with its ranges, to be compiled on the device by `emadeploy build` of a" in done.stdout
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
    ran = run(emadeploy_command, tmp_path, "run", "out", "--source", "pictures")
    assert ran.returncode == 1
    assert ran.stderr.startswith("emadeploy: BackendMissing: engine 'tensorrt' has no backend in this version")

    refused = run(emadeploy_command, tmp_path, "export", *light, "--target", "trt-fp16")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "BuildError: target 'trt-fp16' is not in this version; it builds" in refused.stderr


class Rooms:
    description, tasks = "made:up val", ("depth",)

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


def test_it_is_judged_by_the_same_graph_rounded_and_multiplied_in_float(int8: Int8) -> None:
    int8.build(frozenset())
    assert int8.judged != int8.artifact
    assert (int8.judged / "model.onnx").read_bytes() == (int8.artifact / "model.onnx").read_bytes()
    # Node by node, as the graph says it.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(int8.artifact / "model.onnx", options, providers=["CPUExecutionProvider"])
    [wanted] = plain.run(None, {"image": preprocess(PICTURES[0], InputSpec(*SIZE))})
    in_float = ort.InferenceSession(int8.graph.path, providers=["CPUExecutionProvider"])
    [without] = in_float.run(None, {"image": preprocess(PICTURES[0], InputSpec(*SIZE))})
    found = raw(int8.judged)
    assert np.abs(wanted - without).max() > 1e-3 * np.abs(wanted).max(), "rounding must be seen"
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_what_is_kept_is_judged_in_float(int8: Int8) -> None:
    int8.build(frozenset())
    rounded = raw(int8.judged)
    layers = frozenset(node for unit in int8.units for node in unit.nodes)
    int8.build(layers)
    assert not any("Quantize" in node.op_type for node in onnx.load(int8.judged / "model.onnx").graph.node)
    assert np.abs(raw(int8.judged) - rounded).max() > 0


def test_the_manifest_says_where_its_accuracy_was_measured(int8: Int8, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = parse_budgets("depth=1000%", ("depth",))
    reference = {"tasks": {"depth": {"abs": 1e6, "rel": 1e6, "rmse": 1e6}}}
    monkeypatch.setattr(Judge, "reference", lambda *_: reference)
    manifest = Judge(Rooms(), budgets, 3).keep_within_budgets(int8, None, lambda _: None)
    assert manifest == Manifest.read(int8.artifact)
    assert not manifest.compiled
    assert manifest.accuracy is not None
    assert manifest.accuracy["measured_in"].startswith("ONNX Runtime on the CPU, from the same graph")
    assert (manifest.accuracy["data"], manifest.accuracy["frames"]) == ("made:up val", 2)
    assert manifest.accuracy["tasks"]["depth"]["rel"] > 0
