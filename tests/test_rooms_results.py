"""The rooms table: what is not comparable is refused, the table holds what was recorded, the script runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emadeploy.evaluate.run import SCHEMA
from tests.test_model_cards import load_tool

torch = pytest.importorskip("torch")
pytest.importorskip("yaml")
results = load_tool("rooms_results")
ROOT = Path(__file__).parents[1]

METRICS = {
    "semseg": {"miou": 20.0, "pixel_accuracy": 50.0},
    "depth": {"abs": 0.5, "rel": 0.25, "rmse": 0.8},
    "normals": {"mean": 30.0, "median": 25.0},
}


def better(share: float) -> dict:
    """METRICS, every one of them better by ``share``."""
    return {
        task: {name: value * (1 + share if task == "semseg" else 1 - share) for name, value in row.items()}
        for task, row in METRICS.items()
    }


def record_of(seeds: list[int]) -> dict:
    gains = {"stl": 0.0, "hps": -0.02, "emanet": 0.03, "m_emanet": 0.05}
    rows = [
        {"network": name, "parameters": 4e6, "gmac": 1.5, "runs": [better(gain + 0.01 * seed) for seed in seeds]}
        for name, gain in gains.items()
    ]
    recipe = {"batch_size": 4, "learning_rate": 1e-3, "schedule": "cosine", "precision": "fp32"}
    return {
        "schema": 1,
        "settings": {"train": "rooms:seed=1,count=8", "steps": 10, "size": [64, 96], "recipe": recipe},
        "seeds": seeds,
        "held_out": {"data": "rooms:seed=7,count=4 val", "frames": 4},
        "machine": {"cpu": "a CPU", "architecture": "with flags"},
        "rows": results._with_gains(rows),
    }


def test_the_page_in_the_repository_is_made_from_its_record():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(json.loads(results.RECORD.read_text("utf-8")))


def test_gains_are_over_the_single_task_networks_of_the_same_seed():
    lines = results.table(record_of([0])).splitlines()
    assert [line.split(" | ")[4] for line in lines[2:]] == ["", "-2.00", "+3.00", "+5.00"]
    assert lines[2].startswith("| `stl`, one network per task | 20.00 | 0.5000 | 30.00 |")


def test_gains_are_those_of_the_metrics_shown():
    """A reader who counts delta_m from the table finds that of the table."""
    rows = [
        [*map(str.strip, line.split("|")[2:6])]
        for line in results.PAGE.read_text("utf-8").splitlines()
        if "| `" in line
    ]
    single, *others = [[float(cell) for cell in row if cell] for row in rows]
    assert len(others) == 3
    for miou, depth, angle, gain in others:
        relative = [miou / single[0] - 1, 1 - depth / single[1], 1 - angle / single[2]]
        assert gain == pytest.approx(100 * sum(relative) / 3, abs=0.05)


def test_seeds_are_averaged_and_their_range_is_told():
    record = record_of([0, 1])
    assert record["rows"][2]["delta_m"][0] == pytest.approx(3.0)
    low, high = sorted(record["rows"][2]["delta_m"])
    assert f"({low:+.2f} to {high:+.2f})" in results.table(record)
    assert "the mean of seeds 0, 1" in results.page(record)
    assert "nobody knows" in results.page(record_of([0]))
    assert "nobody knows" not in results.page(record)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs without their checkpoints, all asked for the same."""
    train = {"batch_size": 4, "learning_rate": 1e-3, "schedule": "cosine", "precision": "fp32"}
    asked = {"spec": {"input": {"height": 64, "width": 96}, "train": train}, "train_data": "rooms", "steps": 10}
    metrics = {"schema": SCHEMA, "data": "rooms val", "frames": 4, "tasks": METRICS}
    for network in results.NETWORKS:
        run = tmp_path / f"{network}-seed0"
        run.mkdir()
        (run / "run.json").write_text(json.dumps(asked))
        (run / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def test_a_missing_run_is_named(runs):
    (runs / "emanet-seed0" / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=r"no metrics in .*emanet-seed0"):
        results.collect(runs, [0])


def test_runs_of_other_steps_are_refused(runs):
    path = runs / "m_emanet-seed0" / "run.json"
    path.write_text(path.read_text().replace('"steps": 10', '"steps": 20'))
    with pytest.raises(SystemExit, match=r"m_emanet-seed0 was trained with .*not comparable"):
        results.collect(runs, [0])


def test_runs_judged_on_other_frames_are_refused(runs):
    path = runs / "hps-seed0" / "metrics.json"
    path.write_text(path.read_text().replace('"frames": 4', '"frames": 8'))
    with pytest.raises(SystemExit, match=r"hps-seed0 was judged on .*'frames': 8.*, the others on .*not comparable"):
        results.collect(runs, [0])


def test_the_page_names_the_gpu_that_trained():
    record = record_of([0])
    assert "on an a CPU (with flags), no GPU." in results.page(record)
    record["machine"]["gpu"] = "a large one"
    assert "on an a CPU (with flags), a large one." in results.page(record)


@pytest.mark.slow
def test_the_script_trains_judges_and_compares(tmp_path):
    environment = {
        **os.environ,
        "STEPS": "2",
        "BATCH": "2",
        "SIZE": "64x96",
        "TRAIN": "rooms:seed=1,count=4,size=64x96",
        "VAL": "rooms:seed=7,count=3,size=64x96",
        "EMADEPLOY": str(Path(sys.executable).with_name("emadeploy")),
        "PYTHON": "true",  # the page of the repository stays as it is
    }
    script = [str(ROOT / "tools" / "reproduce_rooms.sh"), str(tmp_path / "runs")]
    subprocess.run(script, check=True, env=environment, timeout=900)
    record = results.collect(tmp_path / "runs", [0])
    single, shared = record["rows"][:2]
    assert single["parameters"] > 2.5 * shared["parameters"]
    assert single["gmac"] > 2 * shared["gmac"]  # three backbones, the same heads
    assert record["settings"]["steps"] == 2
    again = subprocess.run(script, check=True, env=environment, capture_output=True, text=True, timeout=60)
    assert again.stdout.count("there already") == 4
