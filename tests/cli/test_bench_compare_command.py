"""`bench --compare`: what it prints, what it writes, and its exit status."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console

from emadeploy.bench.report import write_report
from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.bench.stats import spread
from emadeploy.cli.bench_parts.compare import compare_files
from emadeploy.contract.errors import DataError

ROW = Row(
    "m[1].ort",
    "onnxruntime-fp32",
    MEASURED,
    38.6,
    2,
    latency_ms=spread([100.0 + 0.01 * index for index in range(70)]),
    tasks={"semseg": {"miou": 61.2}},
    data="d",
)


def compared(tmp_path: Path, old: list[Row], new: list[Row], width: int = 100) -> tuple[str, int, dict]:
    """Return what is printed, the exit status and the json."""
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, rows in zip(paths, (old, new), strict=True):
        write_report(path, Report({"cpu": "x"}, {}, rows))
    file, status = io.StringIO(), 0
    try:
        compare_files(*paths, tmp_path / "out.json", Console(file=file, width=width, highlight=False))
    except typer.Exit as stopped:
        status = stopped.exit_code
    return file.getvalue(), status, json.loads((tmp_path / "out.json").read_text())


def test_nothing_changed_is_status_0(tmp_path: Path) -> None:
    text, status, record = compared(tmp_path, [ROW], [ROW])
    assert status == 0
    assert "m[1].ort" in text
    assert "1 within noise" in text
    assert "network, p50, ms" in text
    assert (record["schema"], record["fine"], record["rows"][0]["verdict"]) == (1, True, "within noise")
    assert record["old"] == str(tmp_path / "old.json")


@pytest.mark.parametrize("width", [80, 140])
def test_slower_is_status_1_and_said(tmp_path: Path, width: int) -> None:
    slow = replace(ROW, latency_ms=spread([150.0] * 70), size_mb=20.0)
    text, status, record = compared(tmp_path, [ROW], [slow], width)
    assert status == 1
    assert "…" not in text
    assert "1.4" in text
    assert "1 worse" in text
    assert {change["what"]: change["verdict"] for change in record["rows"][0]["changes"]} == {
        "network, p50": "worse",
        "network, p90": "worse",
        "size": "better",
        "semseg miou": "within noise",
    }


def test_missing_and_unlike_rows_are_status_1_with_the_reason(tmp_path: Path) -> None:
    text, status, _ = compared(tmp_path, [ROW, replace(ROW, name="b")], [replace(ROW, threads=1)])
    assert status == 1
    assert "m[1].ort: refused: measured differently: threads 2 then, 1 now" in text
    assert "b: missing: the newer report has no such row" in text
    assert "1 refused, 1 missing" in text


def test_an_estimate_says_so(tmp_path: Path) -> None:
    estimate = replace(ROW, estimate=True)
    assert "m[1].ort (estimate)" in compared(tmp_path, [estimate], [estimate])[0]


def test_two_reports_without_rows(tmp_path: Path) -> None:
    assert "nothing to compare: no rows" in compared(tmp_path, [], [])[0]


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="it has no 'schema' and 'rows'"):
        compare_files(tmp_path / "a.json", tmp_path / "a.json")
