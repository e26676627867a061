"""`emadeploy demo`: its photographs, its judgement, its table, and the whole of it on a small model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emadeploy.bench.rows import Row
from emadeploy.cli import app
from emadeploy.cli.demo_parts import frames, judge, table
from emadeploy.cli.demo_parts.findings import Findings
from emadeploy.cli.demo_parts.page import compose
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.contract.tasks import NYUV2_13
from emadeploy.data.sample import Sample

SPEC = ModelSpec(
    "tiny",
    "emanet",
    (TaskSpec("semseg", class_names=NYUV2_13), TaskSpec("depth"), TaskSpec("normals")),
    InputSpec(64, 96),
    data="rooms",
)
SPREAD = {"p50": 10.0, "p90": 12.0, "p99": 13.0, "n": 11}


def maps(depth: float = 2.0, label: int = 3) -> dict[str, np.ndarray]:
    normals = np.zeros((64, 96, 3), np.float32)
    normals[..., 2] = -1
    return {
        "semseg": np.full((64, 96), label, np.uint8),
        "depth": np.full((64, 96), depth, np.float32),
        "normals": normals,
    }


def sample(**truth: np.ndarray) -> Sample:
    return Sample("frame", np.zeros((64, 96, 3), np.uint8), truth)


def findings(**fields: object) -> Findings:
    row = Row(
        "published",
        "onnxruntime-fp32",
        "ok",
        24.0,
        2,
        latency_ms={**SPREAD, "p50": 80.0},
        end_to_end_ms={**SPREAD, "p50": 90.0},
        stages_ms={},
        fps=11.0,
        peak_memory_mb=1800.0,
        baseline_memory_mb=50.0,
        cold_start_s=4.0,
        speedup=1.0,
        speedup_end_to_end=1.0,
        tasks={"semseg": {"miou": 50.0, "pixel_accuracy": 80.0}},
    )
    rewritten = replace(row, name="rewritten", latency_ms=SPREAD, peak_memory_mb=300.0, speedup=8.0)
    values = {
        "spec": SPEC,
        "untrained": False,
        "machine": {"cpu": "a CPU"},
        "versions": {},
        "rows": (row, rewritten),
        "parameters": (6_000_000, 6_100_000),
        "room_data": "rooms:seed=1",
        "room_count": 3,
        "frame_count": 7,
        "photograph": {name: {"abs": 1.0, "rel": 0.5, "rmse": 1.5} for name in ("published", "rewritten")},
        "agreement": {"semseg": {"agreement": 99.99}, "depth": {"rel_mean": 1e-5, "rel_p99": 1e-4}},
    }
    return Findings(**{**values, **fields})


def test_the_motorcycle_stands_a_few_metres_away_and_holes_are_invalid() -> None:
    pytest.importorskip("skimage")
    motorcycle, *others = frames.photographs()
    depth = motorcycle.sample.truth["depth"]
    assert depth.dtype == np.float32
    assert depth.shape == motorcycle.sample.image.shape[:2] == (500, 741)
    judged = depth > 0
    assert 0.9 < judged.mean() < 0.95
    assert np.isfinite(depth).all()
    assert 2 < depth[judged].min() < depth[judged].max() < 5.1
    assert "Middlebury" in motorcycle.credit
    assert len(others) >= 2
    for photograph in others:
        assert photograph.sample.image.dtype == np.uint8
        assert photograph.sample.image.shape[2] == 3
        assert photograph.credit
        assert not photograph.sample.truth


def test_disparity_becomes_metres() -> None:
    depth = frames.motorcycle_depth(np.array([[0.0, 20.0, np.nan, np.inf, -50.0]], np.float32))
    assert depth[0, 0] == pytest.approx(0.193001 * 994.978 / 31.086)
    assert depth[0, 1] == pytest.approx(0.193001 * 994.978 / 51.086)
    assert (depth[0, 2:] == 0).all()


def test_scaling_forgives_the_camera_and_nothing_else() -> None:
    truth = np.linspace(1, 5, 64 * 96, dtype=np.float32).reshape(64, 96)
    truth[:8] = 0
    found = judge.photograph_metrics(SPEC, {"depth": truth * 2 + (truth == 0)}, sample(depth=truth))
    assert found["rel"] == pytest.approx(1)
    assert found["rel_scaled"] == pytest.approx(0, abs=1e-6)
    blank = judge.photograph_metrics(SPEC, {"depth": np.zeros_like(truth)}, sample(depth=truth))
    assert blank["rel"] == pytest.approx(1)
    assert "rel_scaled" not in blank
    assert judge.photograph_metrics(SPEC, {"depth": truth}, sample()) == {}


def test_the_table_holds_every_fact() -> None:
    facts = table.facts(findings())
    lines = {row[0]: row[1:] for row in facts.rows}
    assert facts.columns == ("", "published", "rewritten", "ratio")
    assert lines["network, ms"] == ("80.0", "10.0", "8.0× faster")
    assert lines["peak, MB"] == ("1800", "300", "6.0× less")
    assert lines["parameters, millions"] == ("6.00", "6.10", "")
    assert lines["semseg: miou, % ↑"][:2] == ("50", "50")
    assert lines["rel ↓"][:2] == ("0.5", "0.5")
    assert lines["rel, scaled to the true median ↓"][:2] == ("–", "–")
    assert lines["semseg: pixels of the same class, %"] == ("", "99.99", "")
    assert any("2 threads, median of 11" in head for head in lines)
    assert not any("meaningless" in head for head in lines)
    assert facts.notes == []
    assert table.rich_table(facts, "title").row_count == len(facts.rows)


def test_the_table_says_what_is_untrained_and_what_could_not_run() -> None:
    heads = [row[0] for row in table.facts(findings(untrained=True)).rows if len(row) == 1]
    assert sum("meaningless" in head for head in heads) == 2
    whole = findings()
    dead = Row("published", "onnxruntime-fp32", "failed: its process was killed", 24.0, 2)
    facts = table.facts(findings(rows=(dead, replace(whole.rows[1], speedup=None)), agreement={}))
    lines = {row[0]: row[1:] for row in facts.rows}
    assert lines["network, ms"] == ("–", "10.0", "")
    assert lines["peak, MB"] == ("–", "300", "")
    assert facts.notes == ["published: failed: its process was killed"]


def test_the_record_is_that_of_bench_and_more() -> None:
    record = json.loads(json.dumps(findings().to_dict()))
    assert record["schema"] == 1
    assert [row["name"] for row in record["rows"]] == ["published", "rewritten"]
    assert record["rows"][1]["parameters"] == 6_100_000
    assert record["rows"][1]["latency_ms"]["p50"] == 10.0
    assert record["photograph"]["depth"]["rewritten"]["rel"] == 0.5
    assert record["agreement"]["tasks"]["semseg"]["agreement"] == 99.99


def test_the_page_shows_truth_beside_the_maps_and_credits_photographs() -> None:
    rooms = [sample(**maps(label=2)), sample(**maps())]
    photographs = [frames.Photograph(sample(depth=maps()["depth"]), "Motorcycle", "by a person")]
    answers = {"published": [maps()] * 2, "rewritten": [maps()] * 2}
    pictured = {name: found[:1] for name, found in answers.items()}
    facts = table.facts(findings())
    page = compose(SPEC, (rooms, answers), (photographs, pictured), facts, [], untrained=False)
    first, second = page.sections[0].frames
    assert [strip.name for strip in first.strips] == ["rewritten graph", "published graph", "ground truth"]
    assert [strip.name for strip in second.strips] == ["rewritten graph", "ground truth"]
    assert [picture.caption for picture in first.strips[0].pictures] == [
        "input",
        "labels: 0 % of pixels right",
        "depth, 2.0 to 2.0 m: off by 0% on average",
        "normals: off by 0° on average",
    ]
    (shown,) = page.sections[1].frames
    assert shown.note == "by a person"
    assert [picture is None for picture in shown.strips[-1].pictures] == [True, True, False, True]
    assert "out of its domain" in page.sections[1].text
    assert len(page.legend) == 13
    assert not page.warning
    assert compose(SPEC, (rooms, answers), (photographs, pictured), facts, [], untrained=True).warning


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["emadeploy", "demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        app.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--model", "emanet-nyuv2"], 1, "comes without weights"),
        (["--model", "nonsense"], 1, "'nonsense' is neither a folder nor a model"),
        (["--untrained", "--json", "nowhere/demo.json"], 1, "nowhere is not a folder"),
        (["--rooms", "0"], 2, "--rooms"),
    ],
)
def test_what_cannot_be_shown_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    for package in ("torch", "onnx", "skimage", "cv2"):
        pytest.importorskip(package)
    assert run_main(monkeypatch, *arguments, "-o", tmp_path / "demo") == status
    assert says in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_whole_demo(emadeploy_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "onnx", "skimage", "cv2", "embreex"):
        pytest.importorskip(package)
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.yml").write_text(
        "network: emanet\ndata: rooms\ninput: {size: [64, 96]}\n"
        "tasks: [{kind: semseg, classes: nyuv2-13}, {kind: depth}, {kind: normals}]\n"
    )
    output, record_path = tmp_path / "demo", tmp_path / "demo.json"
    argv = [*emadeploy_command, "demo", "--untrained", "--rooms", "1", "--model", str(tmp_path / "tiny" / "model.yml")]
    done = subprocess.run(
        [*argv, "-o", str(output), "--json", str(record_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for said in ("published", "rewritten", "peak, MB", "untrained", str(output / "demo.html")):
        assert said in done.stdout
    record = json.loads(record_path.read_text())
    assert record["untrained"] is True
    assert [row["status"] for row in record["rows"]] == ["ok", "ok"]
    assert set(record["rows"][0]["tasks"]) == {"semseg", "depth", "normals"}
    assert record["agreement"]["tasks"]["semseg"]["agreement"] > 99
    assert sorted(path.name for path in output.iterdir()) == ["demo.html", "published", "rewritten"]
    page = (output / "demo.html").read_text()
    assert "Untrained" in page
    assert page.count("data:image/") >= 20
