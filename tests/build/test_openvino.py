"""OpenVINO artifacts: what is written, what the audit finds in tiny networks, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")
import onnxruntime as ort
from networks import CONVOLUTIONS, PRODUCT, SIZE, quantise, tiny_graph

from emadeploy import runtime
from emadeploy.build.graph import OnnxGraph
from emadeploy.build.openvino import build
from emadeploy.contract.errors import ArtifactError, BuildError, DeviceError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, TensorSpec
from emadeploy.runtime.backends import openvino as backend

CALIBRATION = {"recipe": "by hand"}
FRAME = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), np.uint8)
IMAGE = preprocess(FRAME, InputSpec(*SIZE))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    return tiny_graph(tmp_path / "graph")


@pytest.fixture
def quantised(tmp_path: Path) -> OnnxGraph:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    quantise(graph, IMAGE)
    return graph


def reference(graph: OnnxGraph) -> np.ndarray[Any, Any]:
    depth: np.ndarray[Any, Any] = ort.InferenceSession(graph.path).run(None, {"image": IMAGE})[0]
    return depth


def answer(artifact: Path) -> np.ndarray[Any, Any]:
    with runtime.load(artifact, threads=1) as perception:
        return perception.raw(FRAME)["depth"]


def error(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_fp32_is_the_graph(graph: OnnxGraph, tmp_path: Path) -> None:
    output = tmp_path / "out"
    manifest = build(graph, output, "openvino-fp32")
    assert Manifest.read(output) == manifest
    manifest.verify_files(output)
    assert sorted(manifest.files) == ["model.bin", "model.xml"]
    assert manifest.precision == {"backbone": "fp32", "ctal": "fp32", "heads.depth": "fp32"}
    assert (manifest.rest, manifest.asked) == ("fp32", {})
    assert error(answer(output), reference(graph)) < 1e-5
    assert manifest.audit is not None
    assert manifest.audit["total"]["compute"] == {"fp32": 5}
    assert manifest.audit["branches"]["backbone"]["compute"] == {"fp32": 2}
    assert manifest.audit["total"]["microseconds"] > 0


def test_int8_runs_in_int8(quantised: OnnxGraph, tmp_path: Path) -> None:
    output = tmp_path / "out"
    manifest = build(quantised, output, "openvino-int8")
    assert manifest.precision == {"backbone": "int8", "ctal": "int8", "heads.depth": "int8"}
    assert manifest.calibration == CALIBRATION
    assert manifest.audit is not None
    assert manifest.audit["total"]["compute"] == {"int8": 5}
    assert 1e-4 < error(answer(output), reference(quantised)) < 0.1


def test_bf16_runs_in_bf16(graph: OnnxGraph, tmp_path: Path) -> None:
    if "bf16" not in backend.capabilities()["cpu"]:
        pytest.skip("this CPU has no bf16")
    output = tmp_path / "out"
    manifest = build(graph, output, "openvino-bf16")
    assert manifest.rest == "bf16"
    assert set(manifest.precision.values()) == {"bf16"}
    assert 1e-4 < error(answer(output), reference(graph)) < 0.05


def test_what_is_kept_in_float_on_purpose_is_no_fault(tmp_path: Path) -> None:
    left = (PRODUCT, CONVOLUTIONS[1])
    graph = tiny_graph(tmp_path / "graph", calibration={**CALIBRATION, "kept": list(left)})
    quantise(graph, IMAGE, leave=left)
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert manifest.precision == {"backbone": "mixed", "ctal": "mixed", "heads.depth": "int8"}
    assert manifest.audit is not None
    assert manifest.audit["branches"]["ctal"]["compute"] == {"int8": 1, "fp32": 1}


def test_float_that_nobody_exempted_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION)
    quantise(graph, IMAGE, leave=[PRODUCT])
    with pytest.raises(BuildError, match=r"branch 'ctal' was asked for in int8; 1 convolution .* fp32: ctal/MatMul\. "):
        build(graph, tmp_path / "out", "openvino-int8")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


def test_a_branch_asked_for_in_float_may_be_float(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION, asked={"heads.depth": "fp32"})
    quantise(graph, IMAGE, leave=[CONVOLUTIONS[2]])
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert manifest.precision == {"backbone": "int8", "ctal": "int8", "heads.depth": "fp32"}
    assert manifest.asked == {"heads.depth": "fp32"}
    with pytest.raises(BuildError, match=r"branch 'ctal' was asked for in fp32; 2 convolutions .* in int8"):
        build(replace(graph, asked={"heads.depth": "fp32", "ctal": "fp32"}), tmp_path / "other", "openvino-int8")


def test_a_branch_asked_for_in_bf16_decides_what_the_rest_runs_in(tmp_path: Path) -> None:
    if "bf16" not in backend.capabilities()["cpu"]:
        pytest.skip("this CPU has no bf16")
    graph = tiny_graph(tmp_path / "graph", calibration=CALIBRATION, asked={"heads.depth": "bf16"})
    quantise(graph, IMAGE, leave=[CONVOLUTIONS[2]])
    manifest = build(graph, tmp_path / "out", "openvino-int8")
    assert manifest.rest == "bf16"
    assert manifest.precision == {"backbone": "int8", "ctal": "int8", "heads.depth": "bf16"}
    with runtime.load(tmp_path / "out") as perception:
        assert perception.describe()["rest"] == "bf16"


def test_the_same_graph_gives_the_same_bytes(quantised: OnnxGraph, tmp_path: Path) -> None:
    for target in ("openvino-fp32", "openvino-int8"):
        first, second = (build(quantised, tmp_path / name, target) for name in "ab")
        assert first.files == second.files


@pytest.mark.parametrize("target", ["openvino-bf16", "openvino-int8"])
def test_a_precision_that_the_cpu_lacks(
    quantised: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    core = SimpleNamespace(
        available_devices=["CPU"],
        get_property=lambda _, name: ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else "a lean CPU",
        compile_model=backend.CORE.compile_model,
    )
    monkeypatch.setattr(backend, "CORE", core)
    with pytest.raises(DeviceError, match=rf"device 'cpu' \(.*\) has no {target[9:]}; OpenVINO .* finds FP32 there"):
        build(quantised, tmp_path / "out", target)
    build(quantised, tmp_path / "out", "openvino-fp32")


def test_int8_of_a_graph_that_is_not_quantised(graph: OnnxGraph, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="int8 was asked for, and this graph is not quantised: calibrate it first"):
        build(graph, tmp_path / "out", "openvino-int8")
    with pytest.raises(BuildError, match="not quantised"):
        build(replace(graph, calibration=CALIBRATION), tmp_path / "out", "openvino-int8")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


def test_a_graph_that_does_not_load(graph: OnnxGraph, tmp_path: Path) -> None:
    graph.path.write_bytes(graph.path.read_bytes()[:200])
    with pytest.raises(BuildError, match=r"OpenVINO .* cannot load the graph .*model\.onnx: ."):
        build(graph, tmp_path / "out", "openvino-fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


def test_a_graph_that_is_not_its_record(graph: OnnxGraph, tmp_path: Path) -> None:
    other = replace(graph, outputs=(TensorSpec("depth", (1, 1, 4, 4), "float32", "BCHW"),))
    with pytest.raises(BuildError, match="not those of its record"):
        build(other, tmp_path / "out", "openvino-fp32")


def test_what_cannot_be_loaded_afterwards_is_no_artifact(
    quantised: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: Path, *arguments: Any, **named: Any) -> Any:
        raise ArtifactError(f"{path} is damaged")

    # The runtime's own loading fails; what the builder compiled for its audit did not.
    with monkeypatch.context() as broken:
        broken.setattr(backend, "compile_network", damaged)
        with pytest.raises(BuildError, match=r"what was built cannot be loaded again: .*model\.xml is damaged"):
            build(quantised, tmp_path / "out", "openvino-int8")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["graph"]
    build(quantised, tmp_path / "out", "openvino-int8")
