"""Several processes: what they compute together is what one computes alone."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from torch import nn  # noqa: E402

from emadeploy import nets  # noqa: E402
from emadeploy.contract.errors import DataError, DeviceError, SpecError  # noqa: E402
from emadeploy.train import machine, processes  # noqa: E402
from emadeploy.train.fit import fit  # noqa: E402

#: A process of Lightning's: it is this script that Lightning starts again for every further device.
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Frames
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Sample
from emadeploy.train import fit as fit_module
from emadeploy.train.run import Run

class Partial(Frames):
    # Every third frame has no depth, and frames differ in how much of it is known: shares that count unequally.
    def __getitem__(self, index):
        whole = super().__getitem__(index)
        truth = dict(whole.truth)
        truth["depth"][:, : 8 * index] = 0
        if index % 3 == 0:
            del truth["depth"]
        return Sample(whole.name, whole.image, truth)

devices = int(sys.argv[1])
fit_module.LOG_EVERY = 1
# In double precision what differs is but the order of sums; in single, Adam makes much of it.
fit_module.LIGHTNING_PRECISIONS["fp32"] = "64-true"
spec = ModelSpec.from_dict(json.loads(Path("spec.json").read_text()))
for batch_norm in {norms!r}:
    now = replace(spec, train=replace(spec.train, batch_norm=batch_norm))
    run = Run(now, Path(f"{{batch_norm}}-{{devices}}"), "made", "made", devices=devices)
    fit_module.fit(run, Partial(8), Partial(3), progress=False)
"""
NORMS = ("synchronised", "frozen", "local")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_spec):
    """Train with one and with two processes of their own; returns a function that gives logs and weights."""
    folder = tmp_path_factory.mktemp("trained")
    spec = make_spec(epochs=2, batch_size=4, weighting="uncertainty", ema_decay=0.9)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    (folder / "train.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent), norms=NORMS))
    for devices in (1, 2):
        command = [sys.executable, "train.py", str(devices)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    def result(devices: int, batch_norm: str):
        run = folder / f"{batch_norm}-{devices}"
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return rows, nets.read_checkpoint(run / "last").state_dict()

    return result


@pytest.mark.parametrize("batch_norm", ["synchronised", "frozen"])
def test_two_processes_are_one_with_the_same_batch(trained, batch_norm):
    """Same losses at every step, same metrics, same weights: everything is summed, over unequal shares.

    Both runs compute in float64 but for the last maps and the losses, which are float32 by design: 1e-6 is a few of
    its roundings. Between the steps nothing is rounded that hard, so it does not grow.
    """
    alone, weights = trained(1, batch_norm)
    together, other_weights = trained(2, batch_norm)
    assert len(alone) == len(together) == 4 + 2  # steps, validations
    judged = 0
    for mine, others in zip(alone, together, strict=True):
        assert mine.keys() == others.keys()
        for name, value in mine.items():
            assert (value == "") == (others[name] == ""), name
            if value:
                assert float(others[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-9), name
                judged += 1
    assert judged > 40
    for name, tensor in weights.items():
        torch.testing.assert_close(other_weights[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_with_statistics_of_each_device_alone_they_are_not(trained):
    """The control: the agreement above is no matter of course."""
    alone, _ = trained(1, "local")
    together, _ = trained(2, "local")
    assert abs(float(alone[1]["loss"]) - float(together[1]["loss"])) > 1e-4


DAMAGED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Frames
from emadeploy.contract.errors import DataError, EmadeployError
from emadeploy.contract.spec import ModelSpec
from emadeploy.train.fit import fit
from emadeploy.train.run import Run
import json

class Damaged(Frames):
    def __getitem__(self, index):
        if index == len(self) - 1:  # a frame of the second process
            raise DataError("label/3.npy is truncated")
        return super().__getitem__(index)

spec = ModelSpec.from_dict(json.loads(Path("spec.json").read_text()))
try:
    fit(Run(spec, Path("run"), "made", "made", devices=2), Frames(4), Damaged(4), progress=False)
except EmadeployError as error:
    sys.exit(f"said: {{error}}")
"""


def test_a_problem_of_one_process_ends_all_and_is_told_once(tmp_path, make_spec):
    (tmp_path / "spec.json").write_text(json.dumps(make_spec(epochs=1, batch_size=2).to_dict()))
    (tmp_path / "train.py").write_text(DAMAGED.format(tests=str(Path(__file__).parent)))
    command, environment = [sys.executable, "train.py"], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("said: frame 3 of made frames: label/3.npy is truncated; repair or remove") == 1
    assert "Traceback" not in done.stderr


# ---- BatchNorm


@pytest.fixture
def one_process(monkeypatch):
    """Let this process take itself for two that do and hold the same: sums over both are twice its own."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "total", lambda value: 2 * value)


def test_batch_norm_over_processes_is_that_of_the_whole_batch(one_process):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5, momentum=0.01).double()
    nn.init.normal_(plain.weight)
    synced = processes.HostSyncBatchNorm.of(nn.BatchNorm2d(5, momentum=0.01).double())
    synced.load_state_dict(plain.state_dict())
    half = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    whole = torch.cat([half, half]).detach().requires_grad_()
    torch.testing.assert_close(synced(half), plain(whole)[:2])
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(synced.named_buffers())[name], buffer, msg=name)
    pull = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    (synced(half) * pull).sum().backward()
    (plain(whole) * torch.cat([pull, pull])).sum().backward()
    torch.testing.assert_close(half.grad, whole.grad[:2])


def test_synchronising_keeps_parameters_and_names(make_spec):
    model = nets.build(make_spec())
    before, first = dict(model.named_parameters()), list(model.state_dict())
    synced = processes.synchronise_batch_norm(model, "cpu")
    assert list(synced.state_dict()) == first
    assert all(tensor is before[name] for name, tensor in synced.named_parameters())
    kinds = {type(layer) for layer in synced.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert kinds == {processes.HostSyncBatchNorm}
    converted = processes.synchronise_batch_norm(nets.build(make_spec()), "cuda")
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in converted.modules())


def test_frozen_statistics_stay(make_run, frames, tmp_path, make_spec):
    torch.manual_seed(3)
    start = nets.build(make_spec())
    nets.save_checkpoint(tmp_path / "start", start, start.spec)
    run = make_run(epochs=1, batch_norm="frozen", start_from=tmp_path / "start")
    fit(run, frames(4), frames(1), progress=False)
    trained = nets.load(run.output / "last").state_dict()
    moved = [name for name, tensor in start.state_dict().items() if not torch.equal(tensor, trained[name])]
    assert moved
    assert not [name for name in moved if "running" in name]


# ---- shares and messages of a single process


def test_alone_everything_is_ones_own():
    assert (processes.count(), processes.rank()) == (1, 0)
    assert processes.share([3, 1, 2]) == [3, 1, 2]
    array = np.array([1.0, 2.0])
    assert processes.total_array(array, torch.device("cpu")) is array
    assert processes.messages(None, torch.device("cpu")) == []
    assert processes.messages("a frame is missing", torch.device("cpu")) == ["a frame is missing"]


# ---- refusals


def test_fewer_frames_than_devices(make_run, frames):
    run = make_run(devices=2)
    with pytest.raises(DataError, match=r"validation data made frames has 1 frames for 2 devices; every device needs"):
        fit(run, frames(4), frames(1), progress=False)
    assert not run.output.exists()


def test_half_precision_needs_a_gpu(make_run, frames, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"precision fp16 needs a GPU, and there is none; on CPUs train in bf16"):
        fit(make_run(precision="fp16"), frames(2), frames(1), progress=False)


def test_more_devices_than_there_are(make_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"--devices 2: this machine has 1 GPU$"):
        machine.check_machine(make_run(devices=2))


def test_torchrun_that_disagrees(make_run, monkeypatch):
    with pytest.raises(SpecError, match=r"--nodes 2: start the command on every node with torchrun, e.g. torchrun"):
        machine.check_machine(make_run(nodes=2))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match=r"torchrun has started 2 processes, --devices 1 --nodes 1 makes 1; give"):
        machine.check_machine(make_run())
    machine.check_machine(make_run(nodes=2))
    machine.check_machine(replace(make_run(), devices=2))
