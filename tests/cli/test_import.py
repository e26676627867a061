"""`emadeploy import`, through the installed command: published weights in, a checkpoint out, or nothing at all."""

import os
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
nets = pytest.importorskip("emadeploy.nets")

from emadeploy import zoo  # noqa: E402

MODEL_YML = """
network: hps
input: {size: [32, 64]}
tasks:
  - {kind: depth}
"""


@pytest.fixture(scope="module")
def model_yml(tmp_path_factory) -> Path:
    """A model of our own, small: a folder is a model, and its name the name."""
    path = tmp_path_factory.mktemp("models") / "tiny" / "model.yml"
    path.parent.mkdir()
    path.write_text(MODEL_YML)
    return path


@pytest.fixture(scope="module")
def state(model_yml):
    """Weights for it, in the published names."""
    torch.manual_seed(3)
    return dict(nets.build(zoo.load_spec(model_yml)).state_dict())


@pytest.fixture
def run(emadeploy_command, tmp_path):
    """Run `emadeploy import` in tmp_path."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [*emadeploy_command, "import", *map(str, arguments)]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def refused(done: subprocess.CompletedProcess[str], output: Path) -> str:
    """Check that the command failed as it should, leaving nothing; return its one line."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert not output.exists()
    assert not [path for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")]
    return done.stderr


def test_published_weights_become_a_checkpoint(run, tmp_path, model_yml, state):
    torch.save(state, tmp_path / "plain.pth")
    wrapped = {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.ckpt")
    for file in ("plain.pth", "wrapped.ckpt"):
        # The second replaces the first: a checkpoint may be.
        done = run(file, "--model", model_yml, "-o", "deeper/imported")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"imported {file} as tiny: deeper/imported (weights ")
        loaded = nets.load(tmp_path / "deeper" / "imported")
        assert loaded.spec == zoo.load_spec(model_yml)
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["imported"]


def test_every_misfit_is_named_in_one_line(run, tmp_path, model_yml, state):
    wrong = {name: tensor for name, tensor in state.items() if name != "backbone.conv1.weight"}
    weight = next(name for name in wrong if name.startswith("heads.depth") and name.endswith("weight"))
    wrong[weight] = torch.zeros(2, 3)
    torch.save({**wrong, "heads.edge.9.bias": torch.zeros(1)}, tmp_path / "wrong.pth")
    line = refused(run("wrong.pth", "--model", model_yml, "-o", "out"), tmp_path / "out")
    assert "missing (1): backbone.conv1.weight;" in line
    assert "unexpected (1): heads.edge.9.bias;" in line
    assert f"wrong shape or type (1): {weight} is (2, 3) instead of " in line


class Evil:
    """A pickle that leaves a file behind when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, state: (torch.save(state, path), path.write_bytes(path.read_bytes()[:-9000])), "not a complete"),
        (lambda path, state: path.write_text("these are no weights"), "download it again"),
        (lambda path, state: path.write_bytes(b"PK\x03\x04 half a zip"), "not a complete PyTorch file"),
        (lambda path, state: torch.save({"state_dict": state, "x": Evil()}, path), "more than weights (posix.mkdir)"),
        (lambda path, state: None, "does not exist"),
    ],
    ids=["truncated", "text", "zip", "code", "missing"],
)
def test_a_file_that_holds_no_weights_is_refused(run, tmp_path, model_yml, state, make, message):
    make(tmp_path / "file.pth", state)
    line = refused(run("file.pth", "--model", model_yml, "-o", "out"), tmp_path / "out")
    assert line.startswith("emadeploy: ArtifactError: file.pth ")
    assert message in line
    assert not (tmp_path / "executed").exists()


def test_an_unknown_model_is_refused(run, tmp_path, state):
    torch.save(state, tmp_path / "file.pth")
    line = refused(run("file.pth", "--model", "emanet-nyu", "-o", "out"), tmp_path / "out")
    assert line.startswith("emadeploy: SpecError: model 'emanet-nyu' is unknown; did you mean emanet-nyuv2?")


def test_a_folder_of_something_else_is_left_alone(run, tmp_path, model_yml, state):
    torch.save(state, tmp_path / "file.pth")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("irreplaceable")
    done = run("file.pth", "--model", model_yml, "-o", "mine")
    assert done.returncode == 1
    assert "mine exists and is not a checkpoint: choose another output with -o" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_without_torch_the_line_that_installs_it_is_printed(tmp_path, model_yml, monkeypatch, capsys):
    import sys

    from emadeploy.cli import app

    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("emadeploy.nets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("emadeploy.nets", raising=False)
    argv = ["emadeploy", "import", "f.pth", "--model", str(model_yml), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "BackendMissing: import needs torch, which is not installed: pip install 'emadeploy[train]'" in (
        capsys.readouterr().err
    )
