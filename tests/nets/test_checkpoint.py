"""Checkpoints: round trip, types, other sizes; killed at any step; truncated, altered, foreign."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.nets import checkpoint as checkpoint_module
from emadeploy.nets.entries import to_storage

METRICS = {"semseg": {"miou": 41.5}, "depth": {"abs": np.float32(0.5)}}


@pytest.fixture(scope="module")
def model(make_spec):
    """One small network; the tests only read it."""
    torch.manual_seed(1)
    return nets.build(make_spec("hps", tasks=("depth",)))


@pytest.fixture
def saved(tmp_path, model):
    """A checkpoint of that network at step 7."""
    return nets.save_checkpoint(tmp_path / "best", model, model.spec, step=7, metrics=METRICS)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """A process that dies; nothing catches it."""


# ---- round trip


@pytest.mark.parametrize("network", ["emanet", "m_emanet", "stl", "hps"])
def test_round_trip_of_every_network(tmp_path, make_spec, network):
    model = nets.build(make_spec(network, tasks=("semseg", "depth")))
    nets.save_checkpoint(tmp_path, model, model.spec)
    loaded = nets.load(tmp_path)
    assert loaded.spec == model.spec
    assert same_weights(loaded, model)


def test_record_keeps_what_is_known(saved, model):
    read = nets.read_checkpoint(saved.folder)
    assert (read.spec, read.step, read.dtype) == (model.spec, 7, "float32")
    assert read.metrics == {"semseg": {"miou": 41.5}, "depth": {"abs": 0.5}}
    assert read.digest == hashlib.sha256(read.path().read_bytes()).hexdigest()
    assert {"emadeploy", "torch", "python"} <= set(read.versions)


def test_extra_files_land_with_the_weights(tmp_path, model):
    nets.save_checkpoint(tmp_path, model, model.spec, extra_files={"trainer.pt": b"state", "note": b"plain"})
    read = nets.read_checkpoint(tmp_path)
    assert read.read("trainer.pt") == b"state"
    assert read.read("note") == b"plain"
    with pytest.raises(ArtifactError, match=r"holds no 'other'; it holds model.safetensors, trainer.pt, note"):
        read.read("other")


def test_saving_again_leaves_no_old_files_and_no_foreign_ones_go(saved, make_spec):
    (saved.folder / "notes.txt").write_text("mine")
    old = saved.path()
    other = nets.build(make_spec("hps", tasks=("depth",)))
    nets.save_checkpoint(saved.folder, other, other.spec, step=8)
    assert same_weights(nets.load(saved.folder), other)
    assert not old.exists()
    names = sorted(path.name for path in saved.folder.iterdir())
    assert names == ["checkpoint.json", nets.read_checkpoint(saved.folder).path().name, "notes.txt"]


def test_saving_the_same_weights_again_only_updates_the_record(saved, model):
    again = nets.save_checkpoint(saved.folder, model, model.spec, step=9)
    assert again.path() == saved.path()
    assert nets.read_checkpoint(saved.folder).step == 9


def test_float16_halves_the_file_and_loads_as_float32(tmp_path, model, saved, relative_error):
    short = nets.save_checkpoint(tmp_path / "short", model, model.spec, dtype="float16")
    assert short.path().stat().st_size < 0.6 * saved.path().stat().st_size
    loaded = nets.load(short.folder).state_dict()
    for name, tensor in model.state_dict().items():
        found = loaded[name]
        assert found.dtype == tensor.dtype
        if tensor.is_floating_point() and tensor.abs().sum() > 0:
            assert relative_error(found, tensor) <= 2**-11


@pytest.mark.parametrize(("value", "kept"), [(1.1, torch.float16), (1e5, torch.float32), (1.1e-7, torch.float32)])
def test_float16_is_not_forced_on_what_it_cannot_hold(value, kept):
    assert to_storage({"x": torch.full((4,), value)}, "float16")["x"].dtype == kept


def test_unknown_dtype_is_refused(tmp_path, model):
    with pytest.raises(SpecError, match=r"'int8' is unknown; known: float32, float16"):
        nets.save_checkpoint(tmp_path, model, model.spec, dtype="int8")


def test_other_image_size_on_loading(tmp_path, make_spec):
    model = nets.build(make_spec("emanet", size=(32, 64)))
    nets.save_checkpoint(tmp_path, model, model.spec)
    larger = nets.load(tmp_path, size=(64, 96))
    assert larger.spec.input.size == (64, 96)
    expected = nets.resize_state_dict(model.state_dict(), (32, 64), (64, 96))
    found = larger.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_channels_last_weights_are_stored_alike(tmp_path, model, saved):
    last = nets.load(saved.folder).to(memory_format=torch.channels_last)
    assert nets.save_checkpoint(tmp_path / "last", last, last.spec).digest == saved.digest


# ---- killed while saving


def _steps(monkeypatch, die_at):
    """Count every call that changes the disk, and die instead of call number ``die_at``."""
    calls = []

    def counted(function):
        def call(*args, **kwargs):
            calls.append(function)
            if len(calls) - 1 == die_at:
                raise Killed
            return function(*args, **kwargs)

        return call

    for name in ("replace", "fsync", "unlink"):
        monkeypatch.setattr(checkpoint_module.os, name, counted(getattr(os, name)))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(Path, "open", counted(Path.open))
    return calls


def test_killed_at_any_step_one_complete_checkpoint_is_left(tmp_path, make_spec, monkeypatch):
    spec = make_spec("hps", tasks=("depth",))
    old, new = nets.build(spec), nets.build(spec)
    extra = {"old": {"trainer.pt": b"old"}, "new": {"trainer.pt": b"new"}}

    def save_over_old(die_at):
        folder = tmp_path / f"killed-{die_at}"
        nets.save_checkpoint(folder, old, spec, step=1, extra_files=extra["old"])
        with monkeypatch.context() as patched:
            calls = _steps(patched, die_at)
            with suppress(Killed):
                nets.save_checkpoint(folder, new, spec, step=2, extra_files=extra["new"])
        return folder, len(calls)

    _, steps = save_over_old(die_at=-1)
    assert steps > 8
    found = []
    for die_at in range(steps):
        folder, _ = save_over_old(die_at)
        read = nets.read_checkpoint(folder)
        assert read.step in (1, 2)
        found.append(read.step)
        assert same_weights(read.model(), old if read.step == 1 else new)
        assert read.read("trainer.pt") == (b"old" if read.step == 1 else b"new")
        # What the killed save left behind goes with the next one.
        nets.save_checkpoint(folder, new, spec, step=3)
        assert len(list(folder.iterdir())) == 2
    assert found == sorted(found)  # the old one up to one step, the new one from there on
    assert set(found) == {1, 2}


def test_killed_in_the_first_save_there_is_no_checkpoint(tmp_path, model, monkeypatch):
    with monkeypatch.context() as patched:
        _steps(patched, die_at=3)
        with pytest.raises(Killed):
            nets.save_checkpoint(tmp_path / "first", model, model.spec)
    with pytest.raises(ArtifactError, match=r"has no checkpoint.json"):
        nets.load(tmp_path / "first")


def test_a_full_disk_is_an_error_of_ours_and_keeps_the_old(saved, model, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module.os, "fsync", full)
        with pytest.raises(ArtifactError, match=r"cannot be written: No space left on device"):
            nets.save_checkpoint(saved.folder, model, model.spec, step=8)
    assert nets.read_checkpoint(saved.folder).step == 7
    assert same_weights(nets.load(saved.folder), model)


# ---- damaged


def test_truncated_weights(saved):
    path = saved.path()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=rf"{path.name} has 1000 bytes, checkpoint.json says \d+: truncated"):
        nets.load(saved.folder)


def test_one_changed_byte(saved):
    path = saved.path()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{path.name} differs from its digest in checkpoint.json: altered"):
        nets.load(saved.folder)


def test_missing_weights(saved):
    saved.path().unlink()
    with pytest.raises(ArtifactError, match=r"is missing; checkpoint.json lists it"):
        nets.load(saved.folder)


def _rewrite(saved, change):
    path = saved.folder / "checkpoint.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_weights_of_another_model(saved, make_spec):
    spec = make_spec("hps", tasks=("depth", "normals"))
    _rewrite(saved, lambda data: data.update(spec=spec.to_dict()))
    with pytest.raises(
        ArtifactError, match=r"(?s)does not fit:\nmissing \(\d+\): heads\.normals\.last_layer\.0\.weight"
    ):
        nets.load(saved.folder)


def test_record_points_outside(saved):
    _rewrite(saved, lambda data: data["files"]["model.safetensors"].update(name="../elsewhere"))
    with pytest.raises(ArtifactError, match=r"'../elsewhere' is not the name of a file inside a checkpoint"):
        nets.load(saved.folder)


def test_weights_that_are_no_safetensors_in_spite_of_a_right_digest(saved):
    content = b"foreign bytes, properly listed"
    saved.path().write_bytes(content)
    listed = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    _rewrite(saved, lambda data: data["files"]["model.safetensors"].update(listed))
    with pytest.raises(ArtifactError, match=r"is not a safetensors file"):
        nets.load(saved.folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the record of a checkpoint"),
        ('{"schema": 1, "spec"', "not the record of a checkpoint"),
        ("[1, 2]", "not the record of a checkpoint"),
        ('{"schema": 1}', "not the record of a checkpoint"),
        ('{"schema": 99}', "has schema 99, this version of emadeploy reads 1"),
    ],
)
def test_foreign_record(tmp_path, text, message):
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        nets.load(tmp_path)


def test_record_with_a_field_too_many_or_too_few(saved):
    _rewrite(saved, lambda data: data.update(surprise=1))
    with pytest.raises(ArtifactError, match=r"checkpoint.json: not the record.*surprise"):
        nets.load(saved.folder)
    _rewrite(saved, lambda data: (data.pop("surprise"), data.pop("step")))
    with pytest.raises(ArtifactError, match=r"checkpoint.json: not the record.*step"):
        nets.load(saved.folder)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere does not exist; a checkpoint is a folder"):
        nets.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"has no checkpoint.json; a checkpoint is a folder"):
        nets.load(tmp_path)
    file = tmp_path / "file.pth"
    file.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"file.pth is not a folder; a checkpoint is a folder"):
        nets.load(file)
