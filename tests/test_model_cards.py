"""Model cards: fresh in the repository, red when something changes, made from what was measured."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from emadeploy import zoo

pytest.importorskip("yaml")
TOOLS = Path(__file__).parents[1] / "tools"


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cards = load_tool("model_cards")


def test_cards_of_the_repository_are_fresh(capsys):
    assert cards.main(["--check"]) == 0, capsys.readouterr().out


@pytest.fixture
def models(tmp_path) -> Path:
    """A copy of one model of the zoo, with its card."""
    shutil.copytree(zoo.assets("models") / "hps-nyuv2", tmp_path / "models" / "hps-nyuv2")
    return tmp_path / "models"


def check(models: Path) -> int:
    return cards.main(["--check", "--models", str(models)])


def test_a_change_of_the_model_turns_it_red(models, capsys):
    assert check(models) == 0
    yml = models / "hps-nyuv2" / "model.yml"
    yml.write_text(yml.read_text().replace("epochs: 200", "epochs: 7"))
    assert check(models) == 1
    assert "README.md is stale: run python tools/model_cards.py hps-nyuv2" in capsys.readouterr().out
    cards.main(["--models", str(models)])
    assert check(models) == 0
    assert "7 epochs" in (models / "hps-nyuv2" / "README.md").read_text()


def test_a_card_edited_by_hand_or_missing_turns_it_red(models):
    readme = models / "hps-nyuv2" / "README.md"
    readme.write_text(readme.read_text() + "\nBest of all!\n")
    assert check(models) == 1
    readme.unlink()
    assert check(models) == 1


@pytest.fixture
def measured(tmp_path) -> Path:
    """Models with a small one whose random weights ship, and were measured on two frames."""
    torch = pytest.importorskip("torch")
    nets = pytest.importorskip("emadeploy.nets")
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "model.yml").write_text("network: hps\ndata: rooms\ninput: {size: [32, 64]}\ntasks: [{kind: depth}]\n")
    spec = zoo.load_spec(folder / "model.yml")
    torch.manual_seed(0)
    nets.save_checkpoint(folder / "weights", nets.build(spec), spec, step=12, dtype="float16")
    for name, shape in (("image", (3,)), ("label", ()), ("depth", ()), ("normal", (3,))):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for index in range(2):
            np.save(tmp_path / "data" / "val" / name / f"{index}.npy", np.ones((32, 64, *shape), np.uint8))
    (tmp_path / "training.json").write_text(json.dumps({"data": "rooms:seed=1,count=9", "wall_time": "3 minutes"}))
    return tmp_path


def test_measured_facts_reach_the_card(measured, capsys):
    tool = load_tool("measure_zoo")
    models, data = measured / "models", f"nyuv2:{measured / 'data'}"
    arguments = ["small", "--data", data, "--training", str(measured / "training.json"), "--models", str(models)]
    assert tool.main(arguments) == 0
    facts = json.loads((models / "small" / "card.json").read_text())
    assert facts["accuracy"]["frames"] == 2
    assert facts["weights"]["step"] == 12
    assert cards.main(["--models", str(models)]) == 0
    assert check(models) == 0
    text = (models / "small" / "README.md").read_text()
    for wanted in (
        f"| depth | abs | {facts['accuracy']['tasks']['depth']['abs']:.4g} | metre | lower |",
        f"On 2 frames of `{data} val`",
        f"emadeploy eval models/small/weights --data {data}",
        "| wall time | 3 minutes |",
        facts["weights"]["sha256"],
        f"| parameters | {facts['parameters'] / 1e6:.2f} million |",
        "Trained on made rooms only",
    ):
        assert wanted in text

    # Other weights than those that were measured turn it red.
    record = models / "small" / "weights" / "checkpoint.json"
    record.write_text(record.read_text().replace(facts["weights"]["sha256"], "0" * 64))
    assert check(models) == 1
    assert "card.json was measured on other weights" in capsys.readouterr().out


def test_measuring_says_what_is_missing(measured, capsys):
    tool = load_tool("measure_zoo")
    arguments = ["small", "--models", str(measured / "models"), "--training"]
    assert tool.main([*arguments, str(measured / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().err
    shutil.rmtree(measured / "models" / "small" / "weights")
    assert tool.main([*arguments, str(measured / "training.json")]) == 1
    assert "weights does not exist; a checkpoint is a folder" in capsys.readouterr().err
