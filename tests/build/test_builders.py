"""The table of builders: what it lists, and what it says where an engine cannot be had."""

import importlib
import subprocess
import sys

import pytest

from emadeploy import build
from emadeploy.contract.errors import BackendMissing, BuildError
from emadeploy.contract.manifest import TARGETS


def test_every_target_listed_has_a_builder_of_its_engine() -> None:
    assert "onnxruntime-int8" in build.targets()
    for target in build.targets():
        engine = TARGETS[target][0]
        found = build.builder(engine)
        assert found.__module__ == f"emadeploy.build.{engine}"


def test_listing_imports_no_engine() -> None:
    code = "import sys, emadeploy.build as build; build.targets(); print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"onnxruntime", "openvino", "onnx", "torch", "nncf"}.isdisjoint(done.stdout.split())


def test_an_engine_of_another_version() -> None:
    with pytest.raises(BuildError, match="engine 'abacus' is not in this version; it builds onnxruntime-fp32, "):
        build.builder("abacus")


def test_no_library_of_nvidia_is_needed_for_the_portable_artifact() -> None:
    assert build.BUILDERS["tensorrt"].package == "onnx"


@pytest.mark.parametrize("target", ["trt-fp32", "trt-fp16"])
def test_a_target_of_another_version(target: str) -> None:
    assert target not in build.targets()
    with pytest.raises(BuildError, match=f"target '{target}' is not in this version; it builds .*, trt-int8$"):
        build.builder("tensorrt", target)
    assert build.builder("tensorrt", "trt-int8") is build.builder("tensorrt")


@pytest.mark.parametrize("engine", list(build.BUILDERS))
def test_a_missing_package_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setitem(sys.modules, build.BUILDERS[engine].package, None)
    monkeypatch.delitem(sys.modules, f"emadeploy.build.{engine}", raising=False)
    package, extra = build.BUILDERS[engine].package, build.BUILDERS[engine].extra
    with pytest.raises(BackendMissing, match=rf"'{engine}' needs {package}, .*pip install 'emadeploy\[{extra}\]'"):
        build.builder(engine)
    monkeypatch.undo()
    importlib.import_module(f"emadeploy.build.{engine}")
