"""tools/check_estimate.py: what it makes of rates and times; the measuring itself is of the tools that it calls."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("openvino")
pytest.importorskip("nncf")
TOOLS = Path(__file__).parents[1] / "tools"
RATES = {
    "macs_per_second": {"fp32": 75e9, "int8": 435e9},
    "bytes_per_second": 2e10,
    "cache_bytes": 2**25,
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("check_estimate", TOOLS / "check_estimate.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


def record(tool: ModuleType, *rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "AMD EPYC", "flags": ["avx512_vnni"]}
    head = {"schema": tool.SCHEMA, "command": "python tools/check_estimate.py", "date": "2026-11-23"}
    return {**head, "machine": machine, "threads": 2, "rounds": 11, "rates": RATES, "rows": list(rows)}


def row(name: str, bound: float, likely: float, measured: float) -> dict[str, Any]:
    times = {"bound_ms": bound, "likely_ms": likely, "measured_ms": measured, "error": likely / measured - 1}
    return {"name": name, "target": "openvino-int8", "ctal": "exact", "size": [288, 384], **times}


def test_rates_that_were_measured_have_no_share_taken_off(tool: ModuleType) -> None:
    machine = tool.machine_of(RATES)
    assert machine.macs_per_second["int8"] == 435e9
    assert machine.macs_per_second["fp16"] == 75e9
    assert set(machine.sustained.values()) == {1.0}
    assert machine.sustained_bytes == 1.0
    assert machine.sustained.keys() == machine.macs_per_second.keys() == machine.granules.keys()


def test_a_row_is_the_estimate_of_the_artifact_beside_what_was_measured(
    tool: ModuleType, make_artifact: Callable[..., Path]
) -> None:
    artifact = make_artifact("mine")
    found = tool.estimate(tool.read_work(artifact), tool.machine_of(RATES))
    made = tool.row_of(artifact, found, 2 * found.likely_ms)
    assert (made["name"], made["target"], made["size"]) == ("mine", "onnxruntime-fp32", [64, 96])
    assert made["error"] == pytest.approx(-0.5)
    assert made["bound_ms"] == found.bound_ms
    json.dumps(made)


def test_the_table_says_how_far_off_it_was(tool: ModuleType) -> None:
    text = tool.table(record(tool, row("a", 50, 110, 100), row("b", 50, 70, 100)))
    assert "| openvino-int8 | exact | 50 ms | 110 ms | 100 ms | +10 % |" in text
    assert "Off by 20 % on average, by 30 % at most. No engine was faster than its bound." in text
    assert "fp32 75, int8 435 GMAC/s, 20.0 GB/s copied" in text


def test_a_bound_that_was_beaten_is_said_and_fails(tool: ModuleType, tmp_path: Path) -> None:
    document, path = tmp_path / "estimates.md", tmp_path / "estimates.json"
    document.write_text("before\n<!-- table: estimates -->\nold\n<!-- /table -->\nafter\n")
    path.write_text(json.dumps(record(tool, row("slow", 50, 60, 100), row("fast", 50, 60, 40))))
    arguments = ["--table", "--json", str(path), "--document", str(document)]
    assert tool.main(arguments) == 1
    text = document.read_text()
    assert "**The bound was beaten by fast.**" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    path.write_text(json.dumps(record(tool, row("slow", 50, 60, 100))))
    assert tool.main(arguments) == 0


def test_what_cannot_be_estimated_ends_with_its_message(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(tmp_path / "absent")]) == 1
    assert "absent does not exist" in capsys.readouterr().err
    assert tool.main(["--table", "--json", str(tmp_path / "absent.json")]) == 1


def test_rates_of_this_machine_are_rates(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_REPEATS", 1)
    assert 1e6 < tool.copy_rate(2, size=2**22) < 1e13
    assert tool.cache_bytes() >= 0


def test_the_largest_cache_is_found(tool: ModuleType, tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert tool.cache_bytes(tmp_path) == 32 * 2**20
    assert tool.cache_bytes(tmp_path / "absent") == 0


def test_the_documents_table_is_that_of_the_record(tool: ModuleType) -> None:
    text = tool.DOCUMENT.read_text("utf-8")
    if tool.JSON.is_file():
        shown = tool.table(json.loads(tool.JSON.read_text("utf-8")))
        assert shown in text, "docs/estimates.md is stale: run python tools/check_estimate.py --table"
    else:
        assert "Not measured yet" in text
