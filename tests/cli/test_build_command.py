"""`emadeploy build`: what it says of an engine, and of everything that keeps one from being built."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import tensorrt_installed
from networks import tiny_graph
from typer.testing import CliRunner

from emadeploy.build.tensorrt import build
from emadeploy.calibrate.half import to_half
from emadeploy.cli.app import app
from emadeploy.contract.errors import ArtifactError, BackendMissing, BuildError, DeviceError, SpecError
from emadeploy.runtime.trt import compiling
from emadeploy.runtime.trt.device import Device
from emadeploy.runtime.trt.library import Library, load_library

installed, everywhere = tensorrt_installed.installed, tensorrt_installed.everywhere
Install = Callable[..., Library]
ORIN = Device("NVIDIA Jetson Orin Nano", "8.7", "36.4.4", "12.6", 8 << 30)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    build(tiny_graph(tmp_path / "graph"), tmp_path / "mine", "trt-fp32")
    return tmp_path / "mine"


@pytest.fixture
def rtx_artifact(tmp_path: Path) -> Path:
    build(tiny_graph(tmp_path / "graph"), tmp_path / "rtx", "trt-rtx-fp32")
    return tmp_path / "rtx"


@pytest.fixture
def on_orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "here", lambda: ORIN)


def run(*arguments: Any) -> str:
    done = CliRunner().invoke(app, ["build", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_it_says_what_was_built_for_what_and_in_which_precision(
    everywhere: Install, on_orin: None, artifact: Path
) -> None:
    everywhere("tensorrt-10.3")
    lines = run(artifact).splitlines()
    assert lines[0].startswith(f"built {artifact}/engine-")
    assert lines[0].endswith("for TensorRT 10.3.0 on NVIDIA Jetson Orin Nano (compute capability 8.7), driver 36.4.4")
    assert lines[1:] == ["  backbone: fp32", "  ctal: fp32", "  heads.depth: fp32"]
    again = run(artifact)
    assert again.startswith(f"{artifact} is built already, for TensorRT 10.3.0 on NVIDIA Jetson Orin Nano")
    assert again.strip().endswith("--force builds it again")
    assert run(artifact, "--force").startswith("built ")


def test_options_reach_the_build(everywhere: Install, on_orin: None, tmp_path: Path) -> None:
    everywhere("tensorrt-10.3", dla_cores=2)
    graph = tiny_graph(tmp_path / "graph")
    onnx.save(to_half(onnx.load(graph.path)), graph.path)
    build(graph, tmp_path / "half", "trt-fp16")
    run(tmp_path / "half", "--workspace", 256, "--optimization-level", 1, "--dla", 1)
    text = (tmp_path / "half" / "engine.json").read_text()
    for setting in ('"workspace_mb": 256', '"optimization_level": 1', '"dla": 1'):
        assert setting in text


def test_it_builds_ahead_of_time_with_the_real_tensorrt_for_rtx(rtx_artifact: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for x86-64 alone")
    load_library.cache_clear()
    output = run(rtx_artifact, "--compute-capability", "8.9, 12.0")
    assert "on any GPU of compute capability 8.9 or 12.0" in output
    assert "  backbone: fp32" in output
    assert "is built already" in run(rtx_artifact, "--compute-capability", "8.9,12.0")


@pytest.mark.parametrize(
    ("world", "arguments", "error", "message"),
    [
        ({"refuses": ("MatMul",)}, (), BuildError, r"does not take node 'ctal/MatMul_gram' \(MatMul\)"),
        ({"fails": "cudaErrorMemoryAllocation"}, (), BuildError, r"Memory ran out\. Lower --workspace"),
        ({}, ("--dla", 0), DeviceError, r"DLA core 0: TensorRT 10\.3\.0 has none here"),
        ({}, ("--compute-capability", "8.9"), DeviceError, "TensorRT for RTX builds ahead of time"),
        ({}, ("--compute-capability", "new"), SpecError, "'new' is not written like 8.9"),
    ],
)
def test_what_keeps_it_from_being_built(
    everywhere: Install, on_orin: None, artifact: Path, world: Any, arguments: Any, error: Any, message: str
) -> None:
    everywhere("tensorrt-10.3", **world)
    with pytest.raises(error, match=message):
        run(artifact, *arguments)
    assert sorted(path.name for path in artifact.iterdir()) == ["manifest.json", "model.onnx"]


def test_without_a_gpu(everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Device:
        raise DeviceError("no NVIDIA GPU on this machine")

    monkeypatch.setattr(compiling, "here", nowhere)
    everywhere("tensorrt-10.3")
    with pytest.raises(DeviceError, match="no NVIDIA GPU on this machine"):
        run(artifact)


def test_without_tensorrt(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    load_library.cache_clear()
    with pytest.raises(
        BackendMissing, match=r"engine 'tensorrt' needs TensorRT, .* pip install 'emadeploy\[tensorrt\]'"
    ):
        run(artifact)


def test_what_is_no_artifact_for_tensorrt(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is for onnxruntime .target onnxruntime-fp32. and needs no compiling"):
        run(make_artifact())
    with pytest.raises(ArtifactError, match="does not exist; an artifact is a folder made by `emadeploy export`"):
        run(tmp_path / "nothing")


def test_it_runs_where_there_is_no_onnx_and_no_torch() -> None:
    """As on a Jetson: numpy, typer and TensorRT."""
    absent = "sys.modules.update(dict.fromkeys(['onnx', 'torch', 'onnxruntime', 'openvino']))"
    code = f"import sys; {absent}; import emadeploy.cli.app, emadeploy.build.tensorrt_engine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
