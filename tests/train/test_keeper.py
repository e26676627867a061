"""When a run ends, and which of its checkpoints is the best."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy import nets  # noqa: E402
from emadeploy.contract.errors import DataError  # noqa: E402
from emadeploy.train import keeper as keeper_module  # noqa: E402
from emadeploy.train.fit import fit  # noqa: E402
from emadeploy.train.keeper import judge_of  # noqa: E402

METRICS = {
    "semseg": {"miou": 50.0, "pixel_accuracy": 80.0},
    "depth": {"abs": 0.5, "rel": 0.2, "rmse": 0.7, "log_rmse": 0.3, "delta1": 70.0, "delta2": 90.0, "delta3": 95.0},
    "normals": {
        "mean": 20.0,
        "median": 15.0,
        "rmse": 25.0,
        "within_11_25": 30.0,
        "within_22_5": 60.0,
        "within_30": 70.0,
    },
}


@pytest.fixture
def baseline(tmp_path):
    """Write a record of `eval --json`, and return its path."""
    path = tmp_path / "stl.json"
    path.write_text(json.dumps({"schema": 1, "data": "made frames", "frames": 1, "tasks": METRICS}))
    return path


def test_a_run_ends_after_validations_that_are_no_better(make_run, frames, monkeypatch):
    errors = iter([5.0, 4.0, 6.0, 4.0, 1.0])
    monkeypatch.setattr(keeper_module, "error_of", lambda metrics: next(errors))
    run = make_run(epochs=5, early_stopping=2)
    fit(run, frames(2), frames(1), progress=False)
    assert nets.read_checkpoint(run.output / "best").step == 2
    last = nets.read_checkpoint(run.output / "last")
    assert last.step == 4
    # It has ended for good.
    fit(run, frames(2), frames(1), resume=True, progress=False)
    assert nets.read_checkpoint(run.output / "last") == last
    assert list(errors) == [1.0]


def test_validations_every_so_many_epochs(make_run, frames, monkeypatch):
    judged = []
    monkeypatch.setattr(keeper_module, "error_of", lambda metrics: judged.append(metrics) or 1.0)
    fit(make_run(epochs=5, validate_every=2), frames(2), frames(1), progress=False)
    assert len(judged) == 3, "after epochs 2, 4, and the last"


def test_gradients_of_several_batches_make_one_step(make_run, frames):
    run = make_run(epochs=1, batch_size=1, accumulate=3)
    fit(run, frames(7), frames(1), progress=False)
    assert nets.read_checkpoint(run.output / "last").step == 3, "3 + 3 + 1 batches"


def test_the_gain_over_the_baseline_chooses_the_best():
    judge = judge_of(METRICS)
    assert judge(METRICS) == 0
    better = {**METRICS, "semseg": {**METRICS["semseg"], "miou": 55.0}}
    worse = {**METRICS, "depth": {**METRICS["depth"], "abs": 0.6}}
    assert judge(better) == pytest.approx(-10 / 3), "10 % in one of three tasks"
    assert judge(worse) == pytest.approx(20 / 3)
    assert judge_of(None)(better) < judge_of(None)(METRICS) < judge_of(None)(worse)


def test_the_gain_is_printed_with_each_validation(make_run, frames, baseline, capsys):
    run = make_run(epochs=1, baseline=baseline)
    fit(run, frames(2), frames(1))
    metrics = nets.read_checkpoint(run.output / "last").metrics
    assert f"delta_m {-judge_of(METRICS)(metrics):+.2f} %" in capsys.readouterr().out
    assert json.loads((run.output / "run.json").read_text())["baseline"]["name"] == "stl.json"


def test_a_baseline_of_other_tasks_is_refused_before_anything_is_trained(make_run, frames, baseline):
    record = json.loads(baseline.read_text())
    del record["tasks"]["depth"]
    baseline.write_text(json.dumps(record))
    run = make_run(epochs=1, baseline=baseline)
    with pytest.raises(
        DataError, match=r"stl.json holds semseg, normals; the gain of tiny on made frames needs depth, "
    ):
        fit(run, frames(2), frames(1), progress=False)
    assert not run.output.exists()


@pytest.mark.parametrize(("data", "count"), [("other frames", 1), ("made frames", 2)])
def test_a_baseline_of_other_data_is_refused_before_anything_is_trained(make_run, frames, baseline, data, count):
    baseline.write_text(json.dumps({"schema": 1, "data": data, "frames": count, "tasks": METRICS}))
    run = make_run(epochs=1, baseline=baseline)
    with pytest.raises(DataError, match=rf"measured on {count} frames of {data}, this on 1 frames of made frames; the"):
        fit(run, frames(2), frames(1), progress=False)
    assert not run.output.exists()
