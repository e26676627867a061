"""Estimates as the bench shows them: for every device without a graph, and for artifacts; labelled in every line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from jetson_trees import ORIN_NANO, make_tree
from rich.console import Console

from emadeploy import zoo
from emadeploy.bench.devices import devices
from emadeploy.bench.jetson import read_jetson
from emadeploy.bench.report import read_report, write_report
from emadeploy.bench.rows import Report
from emadeploy.cli.bench_parts.estimates import WORK_NAME, estimate_rows, is_estimate, print_estimates
from emadeploy.contract.errors import ArtifactError, DeviceError
from emadeploy.contract.work import from_json

SHIPPED = zoo.assets("models") / zoo.DEMO_MODEL / WORK_NAME


def test_what_is_shipped_is_of_the_weights_that_are_shipped() -> None:
    record, graphs = from_json(SHIPPED.read_text("utf-8"))
    spec = zoo.load_spec(zoo.DEMO_MODEL)
    weights = zoo.weights(zoo.DEMO_MODEL)
    assert weights is not None
    stale = f"{SHIPPED} is stale: run python tools/make_work_tables.py"
    assert [path for path in weights.glob("*.safetensors") if record["sha256"][:16] in path.name], stale
    assert (tuple(record["size"]), record["tasks"]) == (spec.input.size, list(spec.task_names)), stale
    assert {graph: set(works) for graph, works in graphs.items()} == {
        "published": {"fp32", "fp16", "int8"},
        "exact": {"fp16", "int8"},
        "basis": {"fp16", "int8"},
    }
    macs = {graph: {work.macs for work in works.values()} for graph, works in graphs.items()}
    # One network has one number of multiplications, whatever its precision; rewriting takes some away.
    assert all(len(found) == 1 for found in macs.values())
    assert max(macs["published"]) > max(macs["exact"]) > max(macs["basis"])


def test_every_device_and_graph_has_a_row_that_says_estimate() -> None:
    rows = estimate_rows("jetson")
    assert len(rows) == len(devices()) * 7
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.estimate and row.measured for row in rows)
    for row in rows:
        assert row.latency_ms is not None
        assert 0 < row.latency_ms["bound"] < row.latency_ms["p50"]
        assert row.fps == pytest.approx(1e3 / row.latency_ms["p50"])


def test_the_table_labels_every_line_and_fits_a_terminal() -> None:
    rows = estimate_rows("jetson")
    console = Console(file=StringIO(), width=80)
    print_estimates(rows, console)
    lines = console.file.getvalue().split("\n")  # type: ignore[attr-defined]
    assert sum("estimate" in line and "trt-" in line for line in lines) == len(rows)
    assert all(any(line.strip() == name for line in lines) for name in devices())
    assert all(line.split()[-1] in ("yes", "no") for line in lines if "trt-" in line)
    assert not any("…" in line for line in lines)
    assert any("estimates, not measured" in line for line in lines)


def test_the_report_comes_back(tmp_path: Path) -> None:
    report = Report({}, {}, estimate_rows("jetson-thor-t5000"))
    write_report(tmp_path / "report.json", report)
    assert [row.estimate for row in read_report(tmp_path / "report.json").rows] == [True] * 7
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["latency_ms"]["bound"] > 0


def test_an_artifact_is_estimated_from_its_own_graph(make_artifact: Callable[..., Path]) -> None:
    [row] = estimate_rows("jetson-orin-nano-8gb", [make_artifact("mine")])
    assert row.name == "jetson-orin-nano-8gb: mine, trt-fp16"
    assert row.artifact is not None
    assert row.artifact.endswith("mine")
    assert any("mine is an artifact of onnxruntime-fp32: as if" in note for note in row.notes)
    # 17 filters of 3 x 3 x 3 and their biases, in float16; the zoo's network is four thousand times as large.
    assert row.size_mb == pytest.approx(2 * (17 * 27 + 17) / 1e6)
    portable = make_artifact("portable", target="trt-fp32", precision={})
    [row] = estimate_rows("jetson-orin-nano-8gb", [portable])
    assert (row.target, row.notes) == ("trt-fp32", ())
    assert row.size_mb == pytest.approx(4 * (17 * 27 + 17) / 1e6)


def test_refusals(tmp_path: Path, make_artifact: Callable[..., Path]) -> None:
    with pytest.raises(DeviceError, match="'jetson-nano' is unknown"):
        estimate_rows("jetson-nano")
    with pytest.raises(ArtifactError, match="does not exist"):
        estimate_rows("jetson", [tmp_path / "absent"])


def test_shipped_tables_that_are_damaged_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / zoo.DEMO_MODEL
    folder.mkdir()
    (folder / WORK_NAME).write_text("{}")
    monkeypatch.setattr("emadeploy.cli.bench_parts.estimates.assets", lambda kind: tmp_path)
    with pytest.raises(ArtifactError, match="install emadeploy again, or name an ARTIFACT"):
        estimate_rows("jetson")


def test_tables_that_are_shipped_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "torch", "yaml"):
        monkeypatch.setitem(sys.modules, package, None)
    assert len(estimate_rows("jetson-agx-xavier")) == 7


def test_on_a_jetson_its_own_name_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("emadeploy.bench.jetson.read_jetson", lambda: None)
    assert is_estimate("jetson")
    here = read_jetson(make_tree(tmp_path, ORIN_NANO), nvpmodel="absent")
    monkeypatch.setattr("emadeploy.bench.jetson.read_jetson", lambda: here)
    assert not is_estimate("jetson")


def test_what_asks_for_an_estimate() -> None:
    assert is_estimate("jetson-orin-nano-8gb")
    assert is_estimate("jetson-of-a-name-that-is-not-known")
    assert not any(is_estimate(device) for device in ("auto", "cpu", "gpu", "gpu:1"))
