"""tools/bench_train.py: what it makes of its measurements, and that a step of it runs."""

import argparse
import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy import zoo  # noqa: E402
from emadeploy.train.losses import task_loss  # noqa: E402


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).parents[2] / "tools" / "bench_train.py"
    spec = importlib.util.spec_from_file_location("bench_train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(**changed):
    fields = {"model": "emanet-nyuv2", "size": "32x64", "batch": 4, "steps": 2, "rounds": 2, "precision": "fp32"}
    return argparse.Namespace(**{**fields, "json": None, "check": True, "form": None, **changed})


def rounds(seconds: float, peak: float) -> list[dict]:
    slow = [seconds * 3, seconds * 3]
    return [{"device": "CPU", "seconds": times, "before": 1e8, "peak": peak} for times in ([seconds] * 3, slow)]


def test_the_best_round_and_the_highest_peak_count(tool):
    record = tool.compare({"exact": rounds(0.5, 4e8), "affinity": rounds(1.5, 1e9)}, arguments())
    assert record["forms"]["exact"]["images_per_second"] == pytest.approx(8)
    assert record["faster"] == pytest.approx(3)
    assert record["memory"] == pytest.approx(0.4)
    assert "linear: 3.00 x as fast (wanted: 2.2 x), 0.40 of the memory" in tool.table(record)


@pytest.mark.parametrize(("seconds", "peak", "status"), [(0.5, 4e8, 0), (1.0, 4e8, 1), (0.5, 6e8, 1)])
def test_check_fails_below_what_is_wanted(tool, monkeypatch, seconds, peak, status):
    found = {"exact": rounds(seconds, peak), "affinity": rounds(1.5, 1e9)}
    monkeypatch.setattr(tool, "parse_arguments", lambda: arguments(rounds=1))
    monkeypatch.setattr(tool, "in_a_process", lambda form: found[form][0])
    assert tool.main() == status


def test_a_step_runs(tool):
    found = tool.measure(arguments(form="exact", steps=1, batch=1))
    assert len(found["seconds"]) == 1
    assert found["peak"] >= found["before"] > 0


def test_random_truth_is_what_losses_take(tool):
    for name in ("emanet-nyuv2", "emanet-pascal-swinv2-t"):
        spec = zoo.load_spec(name)
        truth = tool.random_truth(spec, 1, torch.device("cpu"))
        for task in spec.tasks:
            raw = torch.zeros(1, task.channels, *spec.input.size, requires_grad=True)
            assert task_loss(raw, truth[task.name], task.kind) > 0
