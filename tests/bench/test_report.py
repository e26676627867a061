"""Reports on disk: what is written is read again; what is foreign, newer or garbled is refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.bench.report import read_report, report_of, write_report
from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.bench.stats import spread
from emadeploy.contract.errors import DataError, SpecError

TIMES = st.floats(1e-3, 1e6)
NAMES = st.text(min_size=1, max_size=12)
SPREADS = st.lists(TIMES, min_size=1, max_size=80).map(spread)
ROWS = st.builds(
    Row,
    name=NAMES,
    target=st.sampled_from(["onnxruntime-fp32", "openvino-int8", "torch-eager"]),
    status=st.sampled_from([MEASURED, "failed: its process was killed"]),
    size_mb=st.none() | TIMES,
    threads=st.none() | st.integers(1, 64),
    latency_ms=st.none() | SPREADS,
    end_to_end_ms=st.none() | SPREADS,
    stages_ms=st.none() | st.dictionaries(NAMES, TIMES, max_size=3),
    fps=st.none() | TIMES,
    speedup_ci=st.none() | st.lists(TIMES, min_size=2, max_size=2).map(sorted),
    unstable=st.none() | NAMES,
    energy_j=st.none() | TIMES,
    estimate=st.booleans(),
    mode=st.dictionaries(NAMES, st.integers() | NAMES, max_size=3),
    notes=st.lists(NAMES, max_size=2),
    units=st.dictionaries(NAMES, NAMES, max_size=2),
    tasks=st.dictionaries(NAMES, st.dictionaries(NAMES, TIMES, max_size=2), max_size=2),
    samples_ms=st.none() | st.dictionaries(NAMES, st.lists(TIMES, max_size=5), max_size=2),
)


def record(**row: Any) -> dict[str, Any]:
    """Return a report of one row as plain data, with ``row`` in place of what is usual."""
    usual = Row("a", "onnxruntime-fp32", MEASURED, 12.5, 2, latency_ms=spread([5.0] * 70)).to_dict()
    return {"schema": 1, "machine": {"cpu": "x"}, "settings": {}, "rows": [{**usual, **row}]}


@given(st.lists(ROWS, max_size=3, unique_by=lambda row: row.name))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = tmp_path_factory.mktemp("report") / "bench.json"
    report = Report({"cpu": "some CPU", "cores": 2}, {"threads": None}, rows)
    write_report(path, report)
    again = read_report(path)
    assert again.to_dict() == report.to_dict()
    assert [row.measured for row in again.rows] == [row.measured for row in rows]
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]  # nothing half written stays


def test_keys_of_a_later_version_are_left_out() -> None:
    data = record(colour="blue")
    (row,) = report_of({**data, "weather": "fine"}).rows
    assert (row.name, row.size_mb, row.latency_ms["p50"]) == ("a", 12.5, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_ms": {"p50": "fast"}}, r"row 'a': latency_ms.p50 'fast' is not a time above 0"),
        ({"latency_ms": {"p90": 2.0}}, r"latency_ms.p50 None is not a time"),
        ({"latency_ms": {"p50": 0}}, r"latency_ms.p50 0 is not a time above 0"),
        ({"latency_ms": {"p50": 1.0, "n": 0}}, r"latency_ms.n 0 is not a number of calls"),
        ({"latency_ms": {"p50": 1.0, "p50_ci": [2, 1]}}, r"p50_ci \[2, 1\] is not \[low, high\]"),
        ({"speedup_ci": [1]}, r"speedup_ci \[1\] is not \[low, high\]"),
        ({"latency_ms": [1, 2]}, r"latency_ms is not a mapping but list"),
        ({"size_mb": "12"}, r"size_mb '12' is not a number"),
        ({"threads": True}, r"threads True is not an int"),
        ({"estimate": 1}, r"estimate 1 is not true or false"),
        ({"tasks": {"depth": {"rel": None}}}, r"tasks.depth.rel None is not a number"),
        ({"stages_ms": {"decode": "x"}}, r"stages_ms.decode 'x' is not a number"),
        ({"precision": {"ctal": 8}}, r"precision.ctal 8 is not text"),
        ({"samples_ms": {"total": [1, None]}}, r"samples_ms.total holds what is not a number"),
        ({"notes": "one"}, r"notes is not a list but str"),
        ({"notes": [1]}, r"notes are not lines of text"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    assert report_of(record()).rows[0].measured
    with pytest.raises(SpecError, match=message):
        report_of(record(**change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({**record(), "schema": 2}), r"schema 2: this version of emadeploy reads 1"),
        (json.dumps({"schema": 1, "data": "rooms", "tasks": {}}), r"it has no 'schema' and 'rows'"),
        (json.dumps([1]), r"the report is not a mapping but list"),
        (json.dumps({"schema": 1, "rows": {}}), r"rows is not a list but dict"),
        (json.dumps({"schema": 1, "rows": [3]}), r"row 0 is not a mapping but int"),
        (json.dumps({"schema": 1, "rows": [{}]}), r"missing 5 required positional arguments: 'name'"),
        (json.dumps({**record(), "rows": record()["rows"] * 2}), r"two rows are named 'a'"),
        (json.dumps({**record(), "machine": 1}), r"machine is not a mapping"),
        (json.dumps(record(size_mb=float("nan"))), r"is not json \(it holds NaN\)"),
        ('{"schema": 1, "rows": [', r"is not json"),
        ("[" * 100_000, r"is not json"),
        ("", r"is not json"),
    ],
)
def test_a_foreign_newer_or_garbled_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_report(path)
    assert str(path) in str(refused.value)
    assert "expected a file written by `emadeploy bench --json`" in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read: No such file"):
        read_report(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read: it is not text"):
        read_report(tmp_path / "binary.json")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path / "no" / "such" / "folder.json", Report({}, {}, []))
