"""tools/record_tensorrt_api.py: what its records say of themselves, and that they are true without any library."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from tensorrt_fake import RECORDS, VERSIONS, read_record

TOOL = Path(__file__).parents[1] / "tools" / "record_tensorrt_api.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_tensorrt_api", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_record_of_each_version_and_no_other(tool: ModuleType) -> None:
    assert tool.FOLDER == RECORDS
    assert sorted(path.stem for path in RECORDS.glob("*.json")) == sorted(VERSIONS) == sorted(tool.WHEELS)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_says_which_wheel_it_came_from(tool: ModuleType, version: str) -> None:
    record = read_record(version)
    name, wanted = tool.WHEELS[version].split("==")
    assert record["source"].startswith(f"{name.replace('-', '_')}-{wanted}")
    assert record["version"].startswith(wanted)
    assert len(record["sha256"]) == 64


def test_a_surface_recorded_against_empty_libraries_is_the_real_one(tool: ModuleType) -> None:
    bindings = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has wheels for x86-64 alone")
    record = read_record("tensorrt_rtx-1.7")
    if bindings.__version__ != record["version"]:
        pytest.skip(f"TensorRT for RTX {bindings.__version__} is installed; the record is of {record['version']}")
    found = tool.surface(importlib.import_module("tensorrt_rtx_bindings.tensorrt_rtx"))
    assert found["functions"] == record["functions"]
    assert {name: found["classes"][name] for name in record["classes"]} == record["classes"]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("self: a.Builder, flags: int = 0", ["flags?"]),
        ("self: a.Runtime", []),
        ("network: a.INetwork, logger: a.ILogger", ["network", "logger"]),
        ("self: a.E, strategy: a.S = <S.STATIC: 0>, size: int", ["strategy?", "size"]),
        ("", []),
    ],
)
def test_parameters_are_read_from_what_pybind11_writes(tool: ModuleType, text: str, parameters: list[str]) -> None:
    assert tool._parameters(text) == parameters
