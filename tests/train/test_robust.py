"""What must not lose a run: kills, a full disk, Ctrl-C, frames that cannot be read, weights that are not finite."""

import csv
import errno
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy import nets  # noqa: E402
from emadeploy.contract.errors import ArtifactError, DataError  # noqa: E402
from emadeploy.train import keeper as keeper_module  # noqa: E402
from emadeploy.train import processes  # noqa: E402
from emadeploy.train.augment import Draw  # noqa: E402
from emadeploy.train.batches import Batches, collate  # noqa: E402
from emadeploy.train.fit import fit  # noqa: E402
from emadeploy.train.keeper import Interrupted  # noqa: E402
from emadeploy.train.module import TrainingModule  # noqa: E402
from emadeploy.train.run import STATE  # noqa: E402

#: A recipe in which everything has a state: two moments, a schedule, learned weights, a mean, half a step.
EVERYTHING = {
    "epochs": 2,
    "accumulate": 2,
    "weighting": "uncertainty",
    "schedule": "cosine_warm_restarts",
    "warm_restart_epochs": 1,
    "warm_up_epochs": 0.5,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "random_scale": 1.5,
    "colour_jitter": 0.3,
}


def rows(run) -> list[dict[str, str]]:
    with (run.output / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def trained_state(run) -> dict[str, torch.Tensor]:
    """Return every tensor of the trainer's state: weights, their mean, learned weights of losses, both moments."""
    state = torch.load(run.output / STATE, weights_only=True)
    moments = {
        f"{index}.{name}": value
        for index, row in state["optimizer_states"][0]["state"].items()
        for name, value in row.items()
    }
    return {**state["state_dict"], **moments}


# ---- kills

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Frames
from emadeploy.contract.spec import ModelSpec
from emadeploy.train import fit as fit_module, keeper
from emadeploy.train.run import Run
fit_module.LOG_EVERY, keeper.SAVE_EVERY_S = 1, -1.0
reads, limit = 0, int(sys.argv[1])
def on_read():
    global reads
    reads += 1
    if reads == 1:
        Path("started").write_text("")
    if limit and reads > limit:
        os.kill(os.getpid(), signal.SIGKILL)
spec = ModelSpec.from_dict(json.loads(Path("spec.json").read_text()))
run = Run(spec, Path("run"), "made", "made")
fit_module.fit(run, Frames(8, on_read), Frames(1), resume=Path("run").exists(), progress=False)
"""


def test_killed_at_any_point_and_resumed_is_as_if_never_killed(make_run, frames, digest, tmp_path, monkeypatch):
    """Killed at a random frame, then at a random moment (inside a save, as may be), by the system both times."""
    monkeypatch.setattr(keeper_module, "SAVE_EVERY_S", -1.0)
    monkeypatch.setattr("emadeploy.train.fit.LOG_EVERY", 1)
    whole, killed = make_run("whole", **EVERYTHING), make_run("run", **EVERYTHING)
    fit(whole, frames(8), frames(1), progress=False)

    (tmp_path / "spec.json").write_text(json.dumps(killed.spec.to_dict()))
    script = [sys.executable, "-c", CHILD.format(tests=str(Path(__file__).parent))]
    reads, wait = random.randint(1, 14), random.uniform(0, 3)
    told = f"killed at read {reads}, and {wait:.2f} s after the first read of the next process"
    assert subprocess.run([*script, str(reads)], cwd=tmp_path, check=False).returncode == -signal.SIGKILL, told
    (tmp_path / "started").unlink()
    child = subprocess.Popen([*script, "0"], cwd=tmp_path)
    while not (tmp_path / "started").exists() and child.poll() is None:
        time.sleep(0.05)
    time.sleep(wait)
    child.kill()
    assert child.wait() in (-signal.SIGKILL, 0), told

    fit(killed, frames(8), frames(1), resume=True, progress=False)
    assert nets.read_checkpoint(killed.output / "last").step == 4
    assert (digest(killed), digest(killed, "best")) == (digest(whole), digest(whole, "best")), told
    mine, others = trained_state(killed), trained_state(whole)
    assert mine.keys() == others.keys()
    different = [name for name in mine if not torch.equal(mine[name], others[name])]
    assert not different, told
    assert rows(killed) == rows(whole), told


def test_killed_before_the_first_save_begins_anew(make_run, frames, digest, tmp_path):
    whole, killed = make_run("whole", steps=2), make_run("run", steps=2)
    fit(whole, frames(4), frames(1), progress=False)
    fit(killed, frames(4), frames(1), progress=False)
    for path in killed.output.iterdir():
        if path.name in (STATE, "metrics.csv"):
            path.unlink()
    fit(killed, frames(4), frames(1), resume=True, progress=False)
    assert digest(killed) == digest(whole)


# ---- a full disk


@pytest.mark.parametrize("writes", [0, 1, 4, 7], ids="fails at write {}".format)
def test_a_write_that_fails_keeps_the_checkpoints_before(make_run, frames, digest, monkeypatch, writes):
    whole, full = make_run("whole", epochs=2), make_run("full", epochs=2)
    fit(whole, frames(2), frames(1), progress=False)
    sync, validate, calls = os.fsync, TrainingModule.on_validation_epoch_start, 0

    def failing(descriptor):
        nonlocal calls
        # Called for content and for folders: at any of them, files are half on disk.
        calls += writes_count
        if calls > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    writes_count = 0

    def in_second_epoch(module):
        nonlocal writes_count
        writes_count = module.current_epoch
        validate(module)

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_start", in_second_epoch)
    monkeypatch.setattr(os, "fsync", failing)
    says = r"training stopped: .* cannot be written: No space left on device. The checkpoints in .*full are .* --resume"
    with pytest.raises(ArtifactError, match=says):
        fit(full, frames(2), frames(1), progress=False)
    monkeypatch.undo()
    assert nets.read_checkpoint(full.output / "last").step in (1, 2)
    nets.load(full.output / "last"), nets.load(full.output / "best")
    fit(full, frames(2), frames(1), resume=True, progress=False)
    assert (digest(full), digest(full, "best")) == (digest(whole), digest(whole, "best"))
    assert not [path.name for path in full.output.rglob("*partial*")]


def test_a_picture_that_cannot_be_written_ends_the_run_in_the_same_words(make_run, frames, digest, monkeypatch):
    whole, full, written = make_run("whole", epochs=2), make_run("full", epochs=2), []
    fit(whole, frames(2), frames(1), progress=False)

    def png(sheet):
        written.append(sheet)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return b""

    monkeypatch.setattr("emadeploy.train.pictures.png", png)
    with pytest.raises(
        ArtifactError, match=r"training stopped: .*full cannot be written: No space left on .* --resume"
    ):
        fit(full, frames(2), frames(1), progress=False)
    assert nets.read_checkpoint(full.output / "last").step == 1
    fit(full, frames(2), frames(1), resume=True, progress=False)
    assert digest(full) == digest(whole)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of its own, of 400 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "none", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(make_run, frames, digest, small_disk, stop_after):
    from dataclasses import replace

    whole = make_run("whole", epochs=2)
    full = replace(whole, output=small_disk / "run")
    fit(whole, frames(2), frames(1), progress=False)

    def fill():
        room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        with (small_disk / "ballast").open("ab") as file:
            file.write(bytes(max(room - 20_000_000, 0)))  # a checkpoint fits, the trainer's state does not

    with pytest.raises(ArtifactError, match="No space left on device"):
        fit(full, frames(2, stop_after(3, fill)), frames(1), progress=False)
    assert nets.load(full.output / "last").spec == full.spec
    (small_disk / "ballast").unlink()
    fit(full, frames(2), frames(1), resume=True, progress=False)
    assert digest(full) == digest(whole)


# ---- Ctrl-C


def test_ctrl_c_saves_says_how_to_continue_and_nothing_is_lost(make_run, frames, digest, capfd):
    whole, stopped = make_run("whole", batch_size=1), make_run("stopped", batch_size=1)
    fit(whole, frames(4), frames(1), progress=False)
    before = signal.getsignal(signal.SIGINT)
    reads = itertools.count(1)

    def on_read():
        if next(reads) == 6:  # inside the second epoch
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step \d+ of 8; .*stopped/last holds it. Continue .* --resume"):
        fit(stopped, frames(4, on_read), frames(1), progress=False)
    assert "stopping after this step; press Ctrl-C again to stop at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert 4 < nets.read_checkpoint(stopped.output / "last").step < 8
    fit(stopped, frames(4), frames(1), resume=True, progress=False)
    assert digest(stopped) == digest(whole)


# ---- frames that cannot be read


class Damaged:
    description, tasks = "damaged frames", ("semseg", "depth", "normals")

    def __init__(self, frames, count, damaged):
        self.frames, self.damaged, self.specs = frames(count), damaged, frames.specs

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if index in self.damaged:
            raise DataError(f"label/{index}.npy is truncated")
        return self.frames[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_frame_ends_the_run_and_is_named(make_run, frames, workers):
    run = make_run(epochs=1, workers=workers)
    with pytest.raises(DataError) as caught:
        fit(run, Damaged(frames, 4, {2}), frames(1), progress=False)
    assert str(caught.value) == (
        "frame 2 of damaged frames: label/2.npy is truncated; repair or remove its files, or go on without it: "
        "--on-corrupt skip"
    )


def test_a_corrupt_frame_of_the_validation_ends_the_run_too(make_run, frames):
    with pytest.raises(DataError, match=r"frame 0 of damaged frames: label/0.npy is truncated; repair or remove"):
        fit(make_run(epochs=1), frames(2), Damaged(frames, 2, {0}), progress=False)


def test_corrupt_frames_are_skipped_counted_and_named_once(make_run, frames, capsys):
    run = make_run(epochs=2, on_corrupt="skip")
    fit(run, Damaged(frames, 4, {2}), Damaged(frames, 2, {0}))
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].endswith("corrupt frames left out: 2")
    assert printed[-1].startswith("corrupt frames left out: 2. frame 2 of damaged frames: label/2.npy is truncated; ")
    assert printed[-1].endswith("frame 0 of damaged frames: label/0.npy is truncated")
    assert nets.read_checkpoint(run.output / "last").step == 4


def test_corrupt_frames_of_all_processes_are_told(make_spec, monkeypatch):
    module = TrainingModule(nets.build(make_spec()), make_spec(), 1, skip_corrupt=True)
    module.corrupt["frame 0: cut"] = None

    def messages(own, device):
        return [] if own is None else [own, "frame 0: cut\nframe 3: altered"]

    monkeypatch.setattr(processes, "messages", messages)
    module.on_validation_epoch_end()
    assert list(module.corrupt) == ["frame 0: cut", "frame 3: altered"]


def test_a_run_that_continues_still_counts_them(make_run, frames, capsys):
    options = {"epochs": 2, "on_corrupt": "skip"}
    fit(make_run(**options), Damaged(frames, 4, {2}), frames(1))
    capsys.readouterr()
    fit(make_run(**options), frames(4), frames(1), resume=True)
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("corrupt frames left out: 1. frame 2 of damaged frames: ")
    )


# ---- numbers that are none


def test_answers_that_are_not_finite_name_the_frames(make_spec, frames):
    spec = make_spec()
    module = TrainingModule(nets.build(spec), spec, 1).eval()
    next(module.model.parameters()).data.fill_(math.nan)
    batch = collate([Batches(frames(1), spec)[Draw(0)]])
    module.on_validation_epoch_start()
    says = r"the answers are not finite at step 0, in the batch of frames 0 of the data; their files hold finite values"
    with torch.no_grad(), pytest.raises(DataError, match=says):
        module.validation_step(batch, 0)


def test_weights_that_are_not_finite_are_never_saved(make_run, frames, monkeypatch):
    """A gradient that is not finite spoils the weights after a finite loss: the next loss may come too late."""
    run, step = make_run(epochs=2), TrainingModule.optimizer_step

    def spoiled(module, *arguments, **options):
        step(module, *arguments, **options)
        if module.current_epoch == 1:
            with torch.no_grad():
                next(iter(module.model.parameters())).fill_(math.nan)

    monkeypatch.setattr(TrainingModule, "optimizer_step", spoiled)
    monkeypatch.setattr(TrainingModule, "validation_step", lambda module, batch, batch_idx: None)
    with pytest.raises(DataError, match=r"at step 2 \d+ weights are not finite \(model.backbone.conv1.weight ...\)"):
        fit(run, frames(2), frames(1), progress=False)
    kept = nets.read_checkpoint(run.output / "last")
    assert kept.step == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict().values())
