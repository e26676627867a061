"""What a graph for TensorRT is judged by here: the same numbers, and the kernels that they are meant for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shortened import SIZE, structured

from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.calibrate.tensorrt import quantize, typed
from emadeploy.cli.exporting import portable
from emadeploy.contract.manifest import Manifest
from emadeploy.evaluate.parity import raw_error
from emadeploy.runtime import load
from emadeploy.runtime.machine import sums_bytes
from emadeploy.runtime.profiles.onnxruntime import profile


@pytest.fixture
def stand_in(graph: OnnxGraph, frames: CalibrationFrames, tmp_path: Path) -> Path:
    quantised = quantize(graph, frames, load_recipe("trt-int8").resolved(), tmp_path / "quantised")
    choice = portable.choose_half(graph, frames, lambda _: None)
    portable.stand_in(typed(quantised, tmp_path / "typed", choice), tmp_path / "stand-in")
    return tmp_path / "stand-in"


def kernels(artifact: Path) -> Counter[str]:
    manifest = Manifest.read(artifact)
    [given] = manifest.inputs
    image = {given.name: np.zeros(given.shape, np.float32)}
    return Counter(layer.kind for layer in profile(artifact, manifest, image, threads=1, device=None, runs=1))


def errors(artifact: Path, wanted: list[dict[str, np.ndarray]]) -> dict[str, float]:
    with load(artifact) as perception:
        found = [perception.raw(frame) for frame in structured(4, SIZE, 5)]
    return {
        task: np.mean([raw_error(a[task], b[task]) for a, b in zip(found, wanted, strict=True)]) for task in wanted[0]
    }


@pytest.mark.skipif(not sums_bytes(), reason="this CPU sums no bytes without overflow")
def test_products_of_bytes_run_in_integers(stand_in: Path) -> None:
    found = kernels(stand_in)
    assert found["QLinearConv"] > 10
    assert found["MatMulIntegerToFloat"] >= 2, "both products of CTAL"
    assert not found["MatMul"], found


def test_a_cpu_that_cannot_sum_bytes_multiplies_in_float_as_well(
    stand_in: Path, graph: OnnxGraph, frames: CalibrationFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emadeploy.calibrate import tensorrt

    for module in (portable, tensorrt):
        monkeypatch.setattr(module, "sums_bytes", lambda: False)
    typed_graph = OnnxGraph.read(tmp_path / "typed")
    portable.stand_in(typed_graph, tmp_path / "in-float")
    assert not kernels(tmp_path / "in-float")["QLinearConv"]
    builder("onnxruntime")(graph, tmp_path / "unrounded", "onnxruntime-fp32")
    with load(tmp_path / "unrounded") as perception:
        wanted = [perception.raw(frame) for frame in structured(4, SIZE, 5)]
    integers, floats = (errors(tmp_path / name, wanted) for name in ("stand-in", "in-float"))
    # A result that lies between two steps may fall on either side; how far all of them are off does not change.
    assert all(0.7 < integers[task] / floats[task] < 1.4 for task in floats), (integers, floats)
