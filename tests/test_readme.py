"""The README cannot rot: its Python runs, its commands exist with the options it shows, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(documents: list[str]) -> list[list[str]]:
    """Return the arguments of every line that calls emadeploy."""
    lines = [line for text in documents for line in text.splitlines() if line.startswith("emadeploy ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def parse(arguments: list[str]) -> None:
    """Parse a command line as emadeploy would, without running it; raises click's UsageError."""
    from emadeploy.cli.app import app

    group = typer.main.get_command(app)
    name, *rest = arguments
    command = group.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest)


@pytest.mark.parametrize("arguments", commands(blocks("sh")), ids=" ".join)
def test_commands_exist_with_the_options_shown(arguments):
    parse(arguments)


def test_there_are_five_examples_and_a_wrong_one_would_be_seen():
    assert len(commands(blocks("sh"))) == 5
    with pytest.raises(Exception, match="No such option"):
        parse(["export", "x", "--targte", "onnxruntime-fp32"])
    with pytest.raises(KeyError):
        parse(["exprot"])


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_runtime_example_runs(make_artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_artifact().rename(tmp_path / "mine.onnxruntime-fp32")
    example = next(block for block in blocks("python") if "perception(frame)" in block)
    names = {"frame": np.zeros((48, 80, 3), np.uint8)}
    exec(example, names)
    assert names["result"].depth.shape == (48, 80)


def test_the_nets_example_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from emadeploy import nets, zoo

    monkeypatch.chdir(tmp_path)
    spec = zoo.load_spec("hps-nyuv2")
    nets.save_checkpoint(tmp_path / "runs" / "mine" / "best", nets.build(spec), spec, step=0, metrics={})
    example = next(block for block in blocks("python") if "nets.load" in block)
    names = {"image_B3HW": torch.zeros(1, 3, *spec.input.size)}
    exec(example, names)
    assert names["maps"]["semseg"].shape == (1, 13, 288, 384)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/ctal.md"])
def test_links_to_files_lead_somewhere(document):
    folder = (ROOT / document).parent
    text = (ROOT / document).read_text("utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    missing = [target for target in targets if not (folder / target).exists()]
    assert not missing


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/ctal.md"])
def test_files_named_in_documents_exist(document):
    named = re.findall(r"(?:emadeploy|tools|tests)/[\w/]+\.(?:py|txt)", (ROOT / document).read_text("utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
