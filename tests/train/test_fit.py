"""Runs: they learn, repeat themselves to the bit, survive being ended, and refuse what is not theirs."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy import nets  # noqa: E402
from emadeploy.contract.errors import ArtifactError, DataError, SpecError  # noqa: E402
from emadeploy.contract.spec import TaskSpec  # noqa: E402
from emadeploy.train import fit as fit_module  # noqa: E402
from emadeploy.train import keeper as keeper_module  # noqa: E402
from emadeploy.train.fit import fit  # noqa: E402
from emadeploy.train.keeper import error_of  # noqa: E402
from emadeploy.train.module import TrainingModule  # noqa: E402
from emadeploy.train.run import Run  # noqa: E402


class Stopped(Exception):  # noqa: N818 - it is no error
    """The run ends here, as if the machine had."""


def losses(run: Run) -> list[float]:
    with (run.output / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


# ---- learning


def test_a_frame_is_learnt(make_run, frames, monkeypatch):
    monkeypatch.setattr(fit_module, "LOG_EVERY", 1)
    same = frames(24)
    monkeypatch.setattr(frames, "__getitem__", lambda self, index, read=frames.__getitem__: read(self, 0))
    run = make_run(epochs=1, batch_size=1, learning_rate=3e-3)
    best = fit(run, same, frames(1), progress=False)
    found = losses(run)
    assert np.mean(found[-3:]) < np.mean(found[:3]) / 3
    assert nets.read_checkpoint(best).step == 24


def test_lines_that_a_run_prints(make_run, frames, capsys):
    run = make_run(steps=3)
    fit(run, frames(4), frames(2))
    printed = capsys.readouterr()
    assert printed.err == ""
    start, first, second, end = printed.out.splitlines()
    assert start.startswith("training tiny (hps, 4.1 M parameters) on made frames (4 frames): steps 0 to 3 of 2 frames")
    assert f"torch {torch.__version__}" in start
    assert first.startswith("step 2, ")
    assert "semseg miou " in first
    # A run that ends inside an epoch is validated all the same.
    assert second.startswith("step 3, ")
    assert end.startswith(f"trained tiny: {run.output}/best (step ")
    assert end.endswith(f"{run.output}/last (step 3)")
    assert nets.read_checkpoint(run.output / "last").metrics["depth"]["abs"] > 0


def test_best_has_the_smallest_error(make_run, frames, monkeypatch):
    errors = iter([5.0, 3.0, 4.0])
    monkeypatch.setattr(keeper_module, "error_of", lambda metrics: next(errors))
    run = make_run(epochs=3)
    assert fit(run, frames(2), frames(1), progress=False) == run.output / "best"
    assert nets.read_checkpoint(run.output / "best").step == 2
    assert nets.read_checkpoint(run.output / "last").step == 3


def test_error_is_the_geometric_mean_of_the_primary_errors():
    metrics = {"semseg": {"miou": 60.0, "pixel_accuracy": 1.0}, "depth": {"abs": 0.9, "rel": 7.0}}
    assert error_of(metrics) == pytest.approx(math.sqrt(40 * 0.9))
    assert error_of({**metrics, "normals": {"mean": 20.0}}) == pytest.approx((40 * 0.9 * 20) ** (1 / 3))
    assert error_of({}) == math.inf


# ---- the same again, and continuing


@pytest.mark.parametrize("length", [{"epochs": 2}, {"steps": 4}], ids=["epochs", "steps"])
def test_same_seed_same_weights_and_continuing_is_as_if_never_ended(make_run, frames, digest, stop_after, length):
    whole, again, ended = (make_run(name, **length) for name in ("whole", "again", "ended"))
    fit(whole, frames(4), frames(1), progress=False)
    fit(again, frames(4), frames(1), progress=False)
    assert digest(whole) == digest(again)
    assert digest(whole, "best") == digest(again, "best")

    with pytest.raises(Stopped):
        fit(ended, frames(4, stop_after(5, Stopped)), frames(1), progress=False)  # inside the second epoch
    assert nets.read_checkpoint(ended.output / "last").step == 2
    assert digest(ended) != digest(whole)
    fit(ended, frames(4), frames(1), resume=True, progress=False)
    assert nets.read_checkpoint(ended.output / "last").step == 4
    assert digest(ended) == digest(whole)
    assert digest(ended, "best") == digest(whole, "best")
    former = nets.read_checkpoint(ended.output / "last")
    # Nothing is left to do: continuing once more changes nothing.
    fit(ended, frames(4), frames(1), resume=True, progress=False)
    assert nets.read_checkpoint(ended.output / "last") == former


def test_another_seed_gives_other_weights(make_run, frames, digest):
    one, two = make_run("one", steps=1), make_run("two", steps=1, seed=1)
    fit(one, frames(2), frames(1), progress=False)
    fit(two, frames(2), frames(1), progress=False)
    assert digest(one) != digest(two)


@pytest.mark.parametrize("workers", [0, 1])
def test_continuing_inside_an_epoch_is_as_if_never_ended(make_run, frames, digest, stop_after, monkeypatch, workers):
    whole, ended = make_run("whole", epochs=2, batch_size=1), make_run("ended", epochs=2, batch_size=1)
    fit(whole, frames(4), frames(1), progress=False)
    monkeypatch.setattr(keeper_module, "SAVE_EVERY_S", -1.0)
    with pytest.raises(Stopped):
        fit(ended, frames(4, stop_after(6, Stopped)), frames(1), progress=False)  # inside the second epoch
    assert nets.read_checkpoint(ended.output / "last").step == 6
    monkeypatch.undo()
    fit(replace(ended, workers=workers), frames(4), frames(1), resume=True, progress=False)
    assert nets.read_checkpoint(ended.output / "last").step == 8
    assert digest(ended) == digest(whole)


def test_what_a_network_draws_depends_on_the_position_alone(make_spec):
    """No state of a generator needs to be kept: a backbone that drops paths resumes to the bit."""
    spec = make_spec()
    module = TrainingModule(nets.build(spec), spec, steps=10, seed=4)

    def drawn(batch_idx: int) -> torch.Tensor:
        module.on_train_batch_start(None, batch_idx)
        return torch.rand(4)

    first = drawn(3)
    torch.rand(100)
    assert torch.equal(drawn(3), first)
    assert not torch.equal(drawn(4), first)
    module.seed = 5
    assert not torch.equal(drawn(3), first)


# ---- refusals


def test_a_second_run_into_the_same_folder_is_refused(make_run, frames, digest):
    run = make_run(steps=1)
    fit(run, frames(2), frames(1), progress=False)
    before = digest(run)
    with pytest.raises(SpecError, match=r"run already holds a run; continue it with --resume, or name another with -o"):
        fit(run, frames(2), frames(1), progress=False)
    assert digest(run) == before

    other = replace(run, seed=5, spec=replace(run.spec, train=replace(run.spec.train, learning_rate=0.5)))
    with pytest.raises(SpecError, match=r"spec.train.learning_rate was 0.001, is 0.5; seed was 0, is 5\. Resume with"):
        fit(other, frames(2), frames(1), resume=True, progress=False)
    assert digest(run) == before

    # Damage to the trainer's state is not resumed from; it is read without running pickles.
    state = run.output / "trainer.ckpt"
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=r"damaged .*; start anew from its weights with --from .*last"):
        fit(run, frames(2), frames(1), resume=True, progress=False)


def test_nothing_to_resume(make_run, frames, tmp_path):
    with pytest.raises(SpecError, match=r"holds no run to resume \(no run.json\)"):
        fit(make_run(), frames(2), frames(1), resume=True, progress=False)
    assert not (tmp_path / "run").exists()


def test_data_without_any_task_of_the_model_is_refused(make_run, frames, tmp_path):
    blind = frames(2)
    blind.tasks = ("edge",)
    with pytest.raises(DataError, match=r"validation data made frames has no truth for semseg, depth, normals"):
        fit(make_run(), frames(2), blind, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            TaskSpec("semseg", channels=19),
            r"differ in semseg: the number of classes is 19 in the data and 3 in the model; choose",
        ),
        (
            TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"),
            r"training data made frames and the model differ in depth: the unit is inverse_depth in the data and metre",
        ),
        (TaskSpec("normals", frame="dataset"), r"normals: the frame is dataset in the data and camera_optical in the"),
        (
            TaskSpec("normals", direction="away_from_camera"),
            r"normals: the direction is away_from_camera in the data and toward_camera in the model",
        ),
    ],
)
def test_data_of_another_kind_is_refused(make_run, frames, tmp_path, given, message):
    other = frames(2)
    other.specs = (given,)
    with pytest.raises(DataError, match=message):
        fit(make_run(), other, frames(1), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 3}, "a batch of 2 frames cannot be shared evenly by 3 devices; .* choose a multiple of 3 with"),
        ({"on_corrupt": "ignore"}, "on_corrupt 'ignore' is unknown; known: fail, skip"),
        ({"devices": 0}, "devices 0 is not positive"),
        ({"steps": 0}, "steps 0 is not positive"),
        ({"backbone": Path("nowhere.pth")}, "backbone nowhere.pth is not a file"),
        ({"backbone": Path("w.pth"), "start_from": Path("best")}, "weights start from best or with the .*, not both"),
    ],
)
def test_a_run_that_makes_no_sense(make_run, options, message):
    with pytest.raises(SpecError, match=message):
        make_run(**options)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(make_run, frames, monkeypatch):
    run = make_run(epochs=3, batch_size=1)
    forward, calls = TrainingModule.training_step, 0

    def poisoned(module, batch, batch_idx):
        nonlocal calls
        calls += 1
        image = batch.image * math.nan if calls == 4 else batch.image
        return forward(module, batch._replace(image=image), batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", poisoned)
    says = r"the loss is nan at step 3, in the batch of frames (\d) of made frames; the picture of \1 holds values that"
    with pytest.raises(DataError, match=says):
        fit(run, frames(2), frames(1), progress=False)
    kept = nets.read_checkpoint(run.output / "last")
    assert kept.step == 2
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict().values())


def test_data_that_has_grown_is_not_resumed_with(make_run, frames, digest):
    run = make_run(steps=1)
    fit(run, frames(2), frames(1), progress=False)
    before = digest(run)
    with pytest.raises(DataError, match=r"has 3 frames, and had 2 when .*run was saved; resume with the same"):
        fit(run, frames(3), frames(1), resume=True, progress=False)
    assert digest(run) == before


# ---- where weights start from


def test_starting_from_a_checkpoint_or_a_backbone(make_run, frames, make_spec, tmp_path):
    torch.manual_seed(9)
    donor = nets.build(make_spec())
    nets.save_checkpoint(tmp_path / "donor", donor, donor.spec)
    hrnet = next(iter(donor.hrnets().values()))
    torch.save(hrnet.state_dict(), tmp_path / "hrnet.pth")
    run = make_run("from", start_from=tmp_path / "donor", steps=1, learning_rate=1e-12)
    learnt = nets.load(fit(run, frames(2), frames(1), progress=False))
    for name, parameter in learnt.named_parameters():
        torch.testing.assert_close(parameter, donor.get_parameter(name), atol=1e-6, rtol=0)

    run = make_run("backbone", backbone=tmp_path / "hrnet.pth", steps=1, learning_rate=1e-12)
    learnt = nets.load(fit(run, frames(2), frames(1), progress=False))
    for name, parameter in next(iter(learnt.hrnets().values())).named_parameters():
        torch.testing.assert_close(parameter, hrnet.get_parameter(name), atol=1e-6, rtol=0)
    record = json.loads((run.output / "run.json").read_text())["backbone"]
    assert (record["name"], len(record["sha256"])) == ("hrnet.pth", 64)


def test_a_run_goes_on_with_the_very_weights_that_it_started_from(make_run, frames, make_spec, tmp_path):
    """They are what a teacher answers with; the folder, such as the `last` of another run, may hold others by now."""
    donor = nets.build(make_spec())
    nets.save_checkpoint(tmp_path / "donor", donor, donor.spec)
    run = make_run(start_from=tmp_path / "donor", steps=1)
    fit(run, frames(2), frames(1), progress=False)
    fit(run, frames(2), frames(1), resume=True, progress=False)
    other = nets.build(make_spec())
    nets.save_checkpoint(tmp_path / "donor", other, other.spec)
    with pytest.raises(SpecError, match=r"start_from\.sha256 was \"\w{64}\", is \"\w{64}\"\. Resume with the same"):
        fit(run, frames(2), frames(1), resume=True, progress=False)


def test_weights_that_do_not_fit_leave_no_folder(make_run, frames, make_spec, tmp_path):
    other = nets.build(replace(make_spec(), tasks=make_spec().tasks[:1]))
    nets.save_checkpoint(tmp_path / "other", other, other.spec)
    (tmp_path / "text.pth").write_text("no weights")
    for options in ({"start_from": tmp_path / "other"}, {"backbone": tmp_path / "text.pth"}):
        with pytest.raises(ArtifactError):
            fit(make_run(**options), frames(2), frames(1), progress=False)
        assert not (tmp_path / "run").exists()
