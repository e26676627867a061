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
        assert found.__module__ == f"emadeploy.build.{engine.removesuffix('_rtx')}"


def test_listing_imports_no_engine() -> None:
    code = "import sys, emadeploy.build as build; build.targets(); print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"onnxruntime", "openvino", "onnx", "torch", "nncf"}.isdisjoint(done.stdout.split())


def test_an_engine_of_another_version() -> None:
    with pytest.raises(BuildError, match="engine 'abacus' is not in this version; it builds onnxruntime-fp32, "):
        build.builder("abacus")


def test_no_library_of_nvidia_is_needed_for_the_portable_artifact() -> None:
    assert build.BUILDERS["tensorrt"].package == "onnx"


def test_tensorrt_and_tensorrt_for_rtx_take_the_same_graphs() -> None:
    assert build.builder("tensorrt_rtx") is build.builder("tensorrt")
    assert set(build.targets()) == set(TARGETS)


@pytest.mark.parametrize("engine", list(build.BUILDERS))
def test_a_missing_package_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setitem(sys.modules, build.BUILDERS[engine].package, None)
    module = f"emadeploy.build.{engine.removesuffix('_rtx')}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    package, extra = build.BUILDERS[engine].package, build.BUILDERS[engine].extra
    with pytest.raises(BackendMissing, match=rf"'{engine}' needs {package}, .*pip install 'emadeploy\[{extra}\]'"):
        build.builder(engine)
    monkeypatch.undo()
    importlib.import_module(module)
