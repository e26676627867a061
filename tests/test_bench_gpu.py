"""tools/bench_gpu.py: rows on a machine without a GPU, the table, and documents that name what is there."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "tools" / "bench_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(form: str, way: str = "torch", **measured: Any) -> dict[str, Any]:
    return {"way": way, "form": form, "precision": "fp32", "size": "288x384", **measured}


RECORD = {
    "gpu": "NVIDIA Fake 4000",
    "date": "2026-11-22",
    "model": "emanet-rooms",
    "runs": 100,
    "rows": [
        row("affinity", ms=12.0, memory_mb=900.4),
        row("exact", ms=4.0, memory_mb=80.0),
        row("affinity", "tensorrt", failed="out of memory on NVIDIA Fake 4000"),
        row("exact", "tensorrt", ms=1.5, memory_mb=30.0),
        row("affinity", "tensorrt_rtx", failed="it is not installed"),
        row("exact", "tensorrt_rtx", failed="it is not installed"),
    ],
}


def test_the_table_says_what_was_measured_and_what_was_not(tool: ModuleType) -> None:
    lines = tool.table(RECORD).splitlines()
    assert lines[0].startswith("Measured on NVIDIA Fake 4000, 2026-11-22, emanet-rooms")
    assert "| PyTorch | 288x384 | fp32 | 12.00 ms | 4.00 ms | **3.0 x** | 900 MiB | 80 MiB |" in lines
    assert "| TensorRT | 288x384 | fp32 | out of memory | 1.50 ms |  | out of memory | 30 MiB |" in lines
    assert lines[-3:] == [
        "- TensorRT, 288x384, fp32, published: out of memory on NVIDIA Fake 4000",
        "- TensorRT for RTX, 288x384, fp32, published: it is not installed",
        "- TensorRT for RTX, 288x384, fp32, rewritten: it is not installed",
    ]


def test_what_was_measured_before_the_machine_went_away_has_a_table(tool: ModuleType) -> None:
    lines = tool.table({**RECORD, "rows": RECORD["rows"][:1]}).splitlines()
    assert "| PyTorch | 288x384 | fp32 | 12.00 ms | failed |  | 900 MiB | failed |" in lines
    assert lines[-1] == "- PyTorch, 288x384, fp32, rewritten: not measured: it was cut off"


def test_the_document_is_fresh(tool: ModuleType) -> None:
    text = tool.DOCUMENT.read_text("utf-8")
    record = json.loads(tool.JSON.read_text("utf-8")) if tool.JSON.exists() else None
    assert tool.refreshed(text, record) == text
    assert ("Nothing has been measured yet" in text) == (record is None)
    measured = tool.refreshed(text, RECORD)
    assert "Nothing has been measured yet" not in measured
    assert tool.refreshed(measured, record) == text


def test_a_row_that_cannot_be_measured_says_why(tool: ModuleType, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = tool.in_a_process("torch", "exact", "fp32", "288x384", 1, tmp_path)
    assert re.fullmatch(r"PyTorch .* sees no GPU", found["failed"])
    found = tool.measure_row("onnxruntime", "exact", "fp16", "288x384", runs=1, folder=tmp_path)
    assert found == {"failed": "fp32 graphs alone are exported for it"}
    found = tool.measure_row("tensorrt", "exact", "fp16", "288x384", runs=1, folder=tmp_path)
    assert "TensorRT" in found["failed"] or "NVIDIA" in found["failed"]


def test_a_process_that_crashes_is_a_row(tool: ModuleType, tmp_path: Path) -> None:
    found = tool.in_a_process("torch", "exact", "fp32", "288", 1, tmp_path)
    assert found["failed"].startswith("ended with status 1: ValueError")


def test_a_process_without_memory_is_told_as_such(tool: ModuleType, monkeypatch, tmp_path: Path) -> None:
    words = "Traceback\nRuntimeException: [ONNXRuntimeError] : Failed to allocate memory for requested buffer\n"
    ended = subprocess.CompletedProcess([], 1, "", words)
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: ended)
    found = tool.in_a_process("onnxruntime", "affinity", "fp32", "512x1024", 1, tmp_path)
    assert found["failed"].startswith("out of memory: ended with status 1: RuntimeException")


def test_where_nothing_could_be_measured_nothing_is_written(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tool, "JSON", tmp_path / "gpu.json")
    monkeypatch.setattr(tool, "measure", lambda *_: iter([{**RECORD, "rows": [row("exact", failed="no GPU")]}]))
    assert tool.main([]) == 1
    assert not tool.JSON.exists()


def test_a_measurement_is_written_with_its_table(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gpu.md").write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n")
    monkeypatch.setattr(tool, "JSON", tmp_path / "gpu.json")
    monkeypatch.setattr(tool, "DOCUMENT", tmp_path / "gpu.md")
    rows = RECORD["rows"]
    monkeypatch.setattr(tool, "measure", lambda *_: ({**RECORD, "rows": rows[: n + 1]} for n in range(len(rows))))
    assert tool.main([]) == 0
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == len(rows)
    text = (tmp_path / "gpu.md").read_text()
    assert "NVIDIA Fake 4000" in text
    assert "old" not in text
    assert (text.startswith("before"), text.endswith("after\n")) == (True, True)


def test_times_are_the_median_after_a_warm_up(tool: ModuleType) -> None:
    calls = iter([1000.0] * tool.WARM_UPS + [float(n) for n in range(1, 11)])
    assert tool.timed(lambda: next(calls), 10) == {"ms": 5.5, "p90": 10.0}


@pytest.mark.parametrize("document", ["gpu.md", "jetson.md"])
def test_documents_name_commands_options_and_files_that_exist(document: str) -> None:
    text = (ROOT / "docs" / document).read_text("utf-8")
    surface = (ROOT / "tests" / "cli" / "surface.txt").read_text("utf-8")
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = set(re.findall(r"emadeploy (\w+)", "\n".join(re.findall(r"`{1,3}[^`]+`{1,3}", text))))
    assert commands
    for command in commands - {"import"}:
        assert f"emadeploy {command}\n" in surface
    for option in re.findall(r"`(?:emadeploy \w+ )?(--(?:size|workspace|force|source)\b)", text):
        assert option in surface
    for extra in re.findall(r"emadeploy\[([\w-]+)\]", text):
        assert f"\n{extra} = [" in pyproject
    for target in re.findall(r"make ([\w-]+)`", text):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\(([\w.]+)\)", text):
        assert (ROOT / "docs" / link).exists()
