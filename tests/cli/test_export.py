"""`emadeploy export` as people call it: in a process of its own."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emadeploy import runtime
from emadeploy.cli.app import app
from emadeploy.cli.exporting import make
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.errors import BuildError, CalibrationError, EmadeployError, ExportError, SpecError
from emadeploy.contract.manifest import Manifest

LIGHT = ["export", "hps-cityscapes", "--untrained", "--size", "32x64"]


def run(command: list[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_from_a_name_to_maps(emadeploy_command: list[str], tmp_path: Path) -> None:
    done = run(emadeploy_command, tmp_path, *LIGHT, "--target", "ort-fp32", "--tasks", "depth")
    assert (done.returncode, done.stderr) == (0, "")
    note, started, exported, building, built = done.stdout.splitlines()
    assert note.startswith("note: random weights")
    assert started.startswith("exporting hps-cityscapes, untrained (torch ")
    assert "off by" in exported
    assert building == "building onnxruntime-fp32"
    assert built.startswith("built hps-cityscapes.onnxruntime-fp32 in ")
    assert [path.name for path in tmp_path.iterdir()] == ["hps-cityscapes.onnxruntime-fp32"]
    artifact = tmp_path / "hps-cityscapes.onnxruntime-fp32"
    manifest = Manifest.read(artifact)
    assert (manifest.target, manifest.untrained, manifest.model.task_names) == ("onnxruntime-fp32", True, ("depth",))
    assert manifest.parity["depth"]["raw_error"] < 1e-5
    assert json.loads((artifact / "manifest.json").read_text())["graph"]["opset"] == 18
    result = runtime.load(artifact)(np.full((40, 80, 3), 99, np.uint8))
    assert result.depth is not None
    assert result.depth.shape == (40, 80)


@pytest.mark.parametrize(
    ("arguments", "bound"), [([], 0.02), (["--basis-error", "5"], 0.05), (["--basis-error", "0.5"], 0.005)]
)
def test_the_basis_error_is_a_percentage(monkeypatch: pytest.MonkeyPatch, arguments: list[str], bound: float) -> None:
    ordered: list[Order] = []
    monkeypatch.setattr(make, "make_artifact", lambda name, order: ordered.append(order))
    done = CliRunner().invoke(app, ["export", "emanet-rooms", "--ctal", "basis", *arguments])
    assert done.exit_code == 0, done.output
    assert [order.wanted.bound for order in ordered] == [pytest.approx(bound)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--target", "tpu"], SpecError, "target 'tpu' is unknown; known: onnxruntime-fp32"),
        (["--target", "trt-fp16"], CalibrationError, "no calibration frames are bundled for model 'hps-cityscapes'"),
        (["--ctal", "basis:3"], CalibrationError, "no calibration frames are bundled for model 'hps-cityscapes'"),
        (["--ctal", "basis:12"], SpecError, "CTAL form 'basis:12' is unknown; known: exact, affinity, basis, and"),
        (["--ctal", "basis", "--basis-error", "0"], SpecError, "--basis-error 0 is not above 0 and below 100 percent"),
        (["--ctal", "basis", "--basis-error=-1"], SpecError, "--basis-error -1 is not above 0 and below 100 percent"),
        (["--ctal", "basis", "--basis-error", "100"], SpecError, "--basis-error 100 is not above 0 and below 100"),
        (["--basis-error", "5"], SpecError, "--basis-error 5: the form of CTAL is exact; it goes with --ctal basis"),
        (["--ctal", "basis:3", "--basis-error", "5"], SpecError, "the form of CTAL is basis:3; it goes with --ctal"),
        (["--ctal", "exact"], SpecError, "hps network, without CTAL: leave --ctal out"),
        (["--max-drop", "depth=2%"], SpecError, "--max-drop: for int8 targets alone; onnxruntime-fp32 is not calib"),
        (["--calib-data", "rooms", "--recipe", "r.yml"], SpecError, "--recipe, --calib-data: for int8 targets alone"),
        (["--tasks", "depth,edge"], SpecError, "task 'edge' is unknown; the model has semseg, depth"),
        (["--frame-size", "big"], SpecError, "size 'big' is not HEIGHTxWIDTH"),
        (["--size", "100x64"], SpecError, "height 100 is not divisible by 32"),
        (["-o", "photos"], BuildError, "photos exists and is not an artifact"),
    ],
)
def test_refusals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[EmadeployError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    done = CliRunner().invoke(app, [*LIGHT, *arguments])
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ExportError("no")

    pytest.importorskip("torch")
    from emadeploy.export import stage

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage.trace, "to_onnx", fail)
    done = CliRunner().invoke(app, [*LIGHT, "--target", "ort-fp32"])
    assert isinstance(done.exception, ExportError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_export_leaves_nothing(
    emadeploy_command: list[str], tmp_path: Path, number: int, status: int, word: str
) -> None:
    argv = [*emadeploy_command, *LIGHT, "-o", "out"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        # What it makes on its way lies in a hidden folder; from there on, the network is traced.
        while not any(tmp_path.iterdir()):
            assert export.poll() is None, export.communicate()
            time.sleep(0.02)
        export.send_signal(number)
        _, said = export.communicate()
    assert (export.returncode, said) == (status, f"emadeploy: {word}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights(emadeploy_command: list[str], tmp_path: Path) -> None:
    done = run(emadeploy_command, tmp_path, "export", "hps-cityscapes")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("emadeploy: SpecError: model 'hps-cityscapes' comes without weights: train it")
    assert len(done.stderr.splitlines()) == 1
