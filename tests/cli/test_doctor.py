"""`emadeploy doctor`: what is here, what is not, and the line that installs it."""

import json
import sys
from importlib import metadata, util
from types import SimpleNamespace

import pytest

from emadeploy import __version__
from emadeploy.cli import doctor
from emadeploy.contract.errors import BackendMissing, DeviceError
from emadeploy.contract.manifest import TARGETS
from emadeploy.runtime.trt import device, library


def test_the_command_reports_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.command(as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["emadeploy"] == __version__
    assert record["machine"]["cores"] >= 1
    packages = {package["name"]: package for package in record["packages"]}
    assert packages["onnxruntime"]["version"] == metadata.version("onnxruntime")
    assert packages["onnxruntime"]["wanted"] == ">=1.20"
    targets = {row["target"]: row for row in record["targets"]}
    assert list(targets) == list(TARGETS)
    assert targets["onnxruntime-fp32"] == {"target": "onnxruntime-fp32", "export": None, "run": None}
    assert targets["trt-int8"]["export"] is None


def test_gpus_and_tensorrt_come_with_what_they_are_or_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> device.Device:
        raise DeviceError("no NVIDIA GPU on this machine")

    def load(engine: str) -> SimpleNamespace:
        if engine == "tensorrt_rtx":
            raise BackendMissing("engine 'tensorrt_rtx' needs TensorRT for RTX")
        return SimpleNamespace(version_text="10.3.0")

    monkeypatch.setattr(library, "load_library", load)
    monkeypatch.setattr(device, "here", lambda: device.Device("NVIDIA Jetson Orin Nano", "8.7", "36.4.4", "12.6", 1))
    found = doctor.nvidia()
    assert (found["gpu"]["name"], found["gpu"]["compute_capability"]) == ("NVIDIA Jetson Orin Nano", "8.7")
    assert found["tensorrt"] == {"version": "10.3.0"}
    rows = {row["target"]: row["run"] for row in doctor.targets()}
    assert rows["trt-fp16"] is None
    assert rows["trt-rtx-fp16"] == found["tensorrt_rtx"]["why"] == "engine 'tensorrt_rtx' needs TensorRT for RTX"
    monkeypatch.setattr(device, "here", nowhere)
    assert {row["target"]: row["run"] for row in doctor.targets()}["trt-fp16"] == "no NVIDIA GPU on this machine"
    monkeypatch.setenv("COLUMNS", "200")
    doctor.command(as_json=False)
    text = capsys.readouterr().out
    assert "no NVIDIA GPU on this machine" in text
    assert "10.3.0" in text


def test_engines_with_the_precisions_of_their_devices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openvino = pytest.importorskip("emadeploy.runtime.backends.openvino")
    doctor.command(as_json=True)
    assert "fp32" in json.loads(capsys.readouterr().out)["engines"]["openvino"]["cpu"]
    monkeypatch.setattr(openvino, "capabilities", lambda: {"cpu": ["fp32", "int8"]})
    rows = {row["target"]: row for row in doctor.targets()}
    assert rows["openvino-int8"] == {"target": "openvino-int8", "export": None, "run": None}
    assert rows["openvino-bf16"]["run"] == rows["openvino-bf16"]["export"] == "no device of this machine has bf16"
    assert rows["onnxruntime-int8"]["run"] is None
    doctor.command(as_json=False)
    assert "fp32, int8" in capsys.readouterr().out


def test_without_openvino_its_targets_say_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("emadeploy.runtime.backends.openvino", "emadeploy.build.openvino"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert doctor.engines() == {}
    rows = {row["target"]: row for row in doctor.targets()}
    for verb in ("export", "run"):
        assert "pip install 'emadeploy[openvino]'" in (rows["openvino-fp32"][verb] or "")


def test_a_missing_package_comes_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("cv2", "torch") else found(name))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "emadeploy.runtime.backends.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, "emadeploy.export.stage", None)
    monkeypatch.setenv("COLUMNS", "200")
    packages = {package["name"]: package for package in doctor.packages()}
    assert packages["opencv-python-headless"]["version"] is None
    assert packages["opencv-python-headless"]["install"] == "pip install 'emadeploy[robotics]'"
    rows = {row["target"]: row for row in doctor.targets()}
    assert "pip install 'emadeploy[export]'" in (rows["onnxruntime-fp32"]["export"] or "")
    assert "pip install 'emadeploy[onnxruntime]'" in (rows["onnxruntime-fp32"]["run"] or "")
    doctor.command(as_json=False)
    text = capsys.readouterr().out
    assert "no: pip install 'emadeploy[robotics]'" in text
    assert "onnxruntime-fp32" in text


def test_another_build_of_a_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without_headless(name: str) -> str:
        if name == "opencv-python-headless":
            raise metadata.PackageNotFoundError(name)
        return version("onnxruntime") if name == "opencv-python" else version(name)

    monkeypatch.setattr(metadata, "version", without_headless)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"cv2": ["opencv-python"]})
    packages = {package["name"]: package for package in doctor.packages()}
    assert (packages["opencv-python-headless"]["version"] or "").endswith("(opencv-python)")
    monkeypatch.setattr(metadata, "packages_distributions", dict)
    packages = {package["name"]: package for package in doctor.packages()}
    assert packages["opencv-python-headless"]["version"] == "of unknown version"
