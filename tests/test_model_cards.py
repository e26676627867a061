"""Model cards: fresh in the repository, red when something changes, made from what was measured."""

import importlib.util
import json
import shutil
import sys
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
    sys.modules[name] = module  # dataclasses look their module up
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


def a_row(size: tuple[int, int], sha256: str, published: bool = True) -> dict:
    """What tools/measure_sizes.py records of a size: the published form is twice as slow as float32."""
    forms = {"published": 400.0, "float32": 200.0, "int8": 40.0}
    if not published:
        del forms["published"]
    return {
        "size": list(size),
        "frames": 3,
        "affinities_mb": 191.1,
        "on_the_way_mb": 573.3 if published else 51539.6,
        "accuracy": {"float32": {"depth": {"abs": 0.5, "rel": 0.21}}, "int8": {"depth": {"abs": 0.6, "rel": 0.2345}}},
        "latency_ms": {form: {"p50": ms} for form, ms in forms.items()},
        "peak_memory_mb": {form: 3 * ms for form, ms in forms.items()},
        "speedup": 9.87 if published else None,
        "rounds": 5,
        "threads": 2,
        "machine": {"cpu": "SomeCPU", "cores": 2, "flags": ["avx512_vnni"], "memory_mb": 24576},
        "date": "2026-11-22",
        "weights_sha256": sha256,
        "command": "python tools/measure_sizes.py small --size ...",
    }


def measure_small(measured: Path) -> tuple[Path, dict]:
    """Measure the small model; return its folder and the facts of its card."""
    data, training = f"nyuv2:{measured / 'data'}", str(measured / "training.json")
    arguments = ["small", "--data", data, "--training", training, "--models", str(measured / "models")]
    assert load_tool("measure_zoo").main(arguments) == 0
    folder = measured / "models" / "small"
    return folder, json.loads((folder / "card.json").read_text())


def test_the_card_shows_several_sizes(measured, capsys):
    folder, facts = measure_small(measured)
    digest = facts["weights"]["sha256"]
    facts["sizes"] = [a_row((32, 64), digest), a_row((512, 1024), digest, published=False)]
    (folder / "card.json").write_text(json.dumps(facts))
    assert cards.main(["--models", str(folder.parent)]) == 0
    assert check(folder.parent) == 0
    text = (folder / "README.md").read_text()
    for wanted in (
        "Trained at 32 x 64",
        "the spatial map of fusion kernels is resized",
        "| image | rooms | depth rel (lower) |",
        "| 32 x 64 (trained) | 3 | 0.21 / 0.2345 |",
        "| 32 x 64 | 191 MB | 573 MB | 400.0 ms | 200.0 ms | 40.0 ms | 9.9 x | 1.2 GB | 600 MB | 120 MB |",
        "| 512 x 1024 | 191 MB | 51.5 GB | does not fit | 200.0 ms | 40.0 ms |  | does not fit | 600 MB | 120 MB |",
        "2026-11-22, 2 threads of an SomeCPU (avx512_vnni, 24 GB), medians of 5 calls",
        "python tools/measure_sizes.py small --size ...",
    ):
        assert wanted in text

    # Measured again on the same weights, the sizes stay; on other weights, they are stale.
    assert measure_small(measured)[1]["sizes"] == facts["sizes"]
    facts["sizes"][1]["weights_sha256"] = "0" * 64
    (folder / "card.json").write_text(json.dumps(facts))
    cards.main(["--models", str(folder.parent)])
    assert check(folder.parent) == 1
    assert "card.json has 512 x 1024 of other weights: run python tools/measure_sizes.py" in capsys.readouterr().out
    assert measure_small(measured)[1]["sizes"] == facts["sizes"][:1]


@pytest.fixture
def sizes() -> ModuleType:
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    return load_tool("measure_sizes")


def test_sizes_are_recorded_one_by_one_and_measured_once(measured, sizes, capsys, monkeypatch):
    folder, facts = measure_small(measured)
    digest = facts["weights"]["sha256"]
    measured_now = []

    def measure_size(weights, plan, artifacts, rounds):
        if plan.size == (96, 96):
            raise sizes.EmadeployError("no room")
        measured_now.append(str(plan))
        return a_row(plan.size, digest)

    monkeypatch.setattr(sizes, "measure_size", measure_size)
    arguments = ["small", "--models", str(folder.parent), "--size", "64x96:3", "--size", "32x64:3"]
    assert sizes.main([*arguments, "--size", "96x96:3"]) == 1
    assert "measure_sizes: no room" in capsys.readouterr().err
    recorded = json.loads((folder / "card.json").read_text())
    assert [row["size"] for row in recorded["sizes"]] == [[32, 64], [64, 96]]
    assert recorded["sizes"][1]["command"] == "python tools/measure_sizes.py small --size 64x96:3"
    assert recorded["accuracy"] == facts["accuracy"]

    assert sizes.main(arguments) == 0
    assert measured_now == ["64x96", "32x64"]
    assert sizes.main([*arguments, "--again"]) == 0
    assert measured_now == ["64x96", "32x64"] * 2


@pytest.mark.parametrize("text", ["64x96", "64x96:", "64x96:0", "64:3", "64x96:-1"])
def test_a_size_that_makes_no_sense_is_refused(measured, sizes, text, capsys):
    assert sizes.main(["small", "--models", str(measured / "models"), "--size", text]) == 1
    assert "is not HEIGHTxWIDTH" in capsys.readouterr().err


def test_the_affinities_of_the_published_form(sizes):
    # Four matrices of 6912 x 6912 and of 32768 x 32768 numbers of four bytes.
    assert sizes.affinities_mb(3, (288, 384)) == pytest.approx(764.4, abs=0.1)
    assert sizes.affinities_mb(3, (512, 1024)) == pytest.approx(17179.9, abs=0.1)
