"""`emadeploy train`: one command per row of the paper's tables starts, on data in the layout of the real ones."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import typer
from fake_timm import install
from layouts import part_annotation

from emadeploy import nets, zoo
from emadeploy.cli import app
from emadeploy.cli import train as train_module
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.recipe import TrainSpec
from emadeploy.train.keeper import Interrupted

SIZE = (64, 96)
ROWS = [name for name in zoo.names() if name != zoo.DEMO_MODEL]


def nyuv2(folder: Path, rng: np.random.Generator) -> str:
    """Write two frames per split as the preprocessed release has them."""
    maps: dict[str, Callable[[], np.ndarray]] = {
        "image": lambda: rng.random((*SIZE, 3)),
        "label": lambda: rng.integers(-1, 13, SIZE),
        "depth": lambda: rng.uniform(0.5, 9, (*SIZE, 1)),
        "normal": lambda: unit(rng.normal(size=(*SIZE, 3))),
    }
    return write_npy(folder, "nyuv2", maps)


def cityscapes(folder: Path, rng: np.random.Generator) -> str:
    """Write two frames per split as the preprocessed release has them."""
    maps: dict[str, Callable[[], np.ndarray]] = {
        "image": lambda: rng.random((*SIZE, 3)),
        "label_19": lambda: rng.integers(-1, 19, SIZE),
        "label_7": lambda: rng.integers(-1, 7, SIZE),
        "depth": lambda: rng.uniform(0, 0.49, (*SIZE, 1)),
    }
    return write_npy(folder, "cityscapes", maps)


def write_npy(folder: Path, kind: str, maps: dict[str, Callable[[], np.ndarray]]) -> str:
    for split in ("train", "val"):
        for name, make in maps.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(2):
                np.save(folder / split / name / f"{index}.npy", make())
    return f"{kind}:{folder}"


def pascal_context(folder: Path, rng: np.random.Generator) -> str:
    """Write two frames per split as PASCAL_MT has them, a person in each."""
    cv2, savemat = pytest.importorskip("cv2"), pytest.importorskip("scipy.io").savemat
    pictures = {
        "JPEGImages/{}.jpg": lambda: rng.integers(0, 256, (*SIZE, 3)),
        "semseg/VOC12/{}.png": lambda: rng.integers(0, 21, SIZE),
        "sal_distill/{}.png": lambda: rng.integers(0, 256, SIZE),
        "normals_distill/{}.png": lambda: rng.integers(0, 256, (*SIZE, 3)),
    }
    for split in ("train", "val"):
        names = [f"2008_{split}_{index}" for index in range(2)]
        write(folder / "ImageSets" / "Context" / f"{split}.txt", "\n".join(names).encode())
        for name in names:
            for place, make in pictures.items():
                path = folder / place.format(name)
                write(path, cv2.imencode(path.suffix, make().astype(np.uint8))[1].tobytes())
            path = folder / "pascal-context" / "trainval" / f"{name}.mat"
            parts = folder / "human_parts" / f"{name}.mat"
            for place in (path, parts):
                place.parent.mkdir(parents=True, exist_ok=True)
            head, person = np.eye(*SIZE), np.ones(SIZE)
            savemat(parts, part_annotation([(15, person, {"torso": person, "head": head})]))
            savemat(path, {"LabelMap": np.kron(rng.integers(1, 400, (4, 6)), np.ones((16, 16))).astype(np.uint16)})
    return f"pascal-context:{folder}"


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """Return DATA by the name that model.yml has for it."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("data")
    makers = {"nyuv2": nyuv2, "cityscapes": cityscapes, "pascal-context": pascal_context}
    made = {name: make(folder / name, rng) for name, make in makers.items()}
    return made | {"cityscapes-7": made["cityscapes"].replace("cityscapes:", "cityscapes-7:", 1)}


@pytest.fixture
def train(tmp_path, monkeypatch) -> Callable[..., None]:
    """Return a function that runs the command in an empty folder, as `emadeploy train ...` does."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        app.app(["train", *arguments], standalone_mode=False)

    return run


def test_the_rows_are_those_of_the_paper():
    networks = ("emanet", "m-emanet", "stl", "hps")
    data = ("nyuv2", "cityscapes", "cityscapes-7")
    assert set(ROWS) == {f"{n}-{d}" for n in networks for d in data} | {"emanet-pascal-swinv2-t"}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_paper_starts(train, data, name, monkeypatch, capsys, tmp_path):
    install(monkeypatch)
    spec = zoo.load_spec(name)
    train("--model", name, "--data", data[spec.data], "--steps", "1", "--batch", "2", "--size", "64x96")
    found = nets.read_checkpoint(tmp_path / "runs" / name / "best")
    assert found.step == 1
    assert found.spec.tasks == spec.tasks
    assert set(found.metrics) == set(spec.task_names)
    printed = capsys.readouterr().out
    assert f"training {name} ({spec.network}, " in printed
    assert f"trained {name}: runs/{name}/best (step 1, " in printed


def test_the_document_has_a_command_for_every_row():
    """Each parses, names the row's own data, and no other row is told of."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8").replace("\\\n", "")
    command, told = typer.main.get_command(app.app).commands["train"], []
    for line in (line for line in text.splitlines() if line.startswith("emadeploy train")):
        parsed = command.make_context("train", shlex.split(line)[2:]).params
        if parsed["model"] is None:  # fine-tuned from a checkpoint: no row of its own
            assert parsed["qat"], line
            continue
        assert parsed["data"].split(":")[0] == zoo.load_spec(parsed["model"]).data, line
        told.append(parsed["model"])
    assert list(dict.fromkeys(told)) == sorted(ROWS, key=told.index)
    fields = [field.name for field in dataclasses.fields(TrainSpec)]
    assert [name for name in fields if f"`{name}`" not in text] == []


def test_options_reach_the_recipe_and_the_run(train, data, monkeypatch):
    seen = {}
    monkeypatch.setattr("emadeploy.train.fit.fit", lambda run, *_, **rest: seen.update(run=run, **rest))
    train(
        *("--model", "hps-nyuv2", "--data", data["nyuv2"], "--precision", "bf16", "--validate-every", "3"),
        *(
            "--batch",
            "6",
            "--devices",
            "2",
            "--on-corrupt",
            "skip",
            "--learning-rate",
            "0.01",
            "--resume",
            "-o",
            "there",
        ),
    )
    run = seen["run"]
    recipe = run.spec.train
    assert (recipe.precision, recipe.validate_every, recipe.batch_size, recipe.learning_rate) == ("bf16", 3, 6, 0.01)
    assert (run.devices, run.on_corrupt, run.output, seen["resume"]) == (2, "skip", Path("there"), True)
    assert (run.qat, seen["student"]) == (None, None)
    assert recipe.weight_decay == zoo.load_spec("hps-nyuv2").train.weight_decay


def test_ctrl_c_exits_as_a_shell_expects(train, data, monkeypatch, capsys):
    def stopped(*_, **__):
        raise Interrupted("stopped at step 3 of 8; ... Continue with the same command and --resume")

    monkeypatch.setattr("emadeploy.train.fit.fit", stopped)
    with pytest.raises(typer.Exit) as caught:
        train_module.command(data["nyuv2"], model="hps-nyuv2")
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err.startswith("emadeploy: stopped at step 3 of 8")


def test_find_lr_prints_a_rate_and_leaves_nothing(train, data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("emadeploy.train.find_rate.find_rate", lambda run, samples: 3.162e-4)
    train("--model", "hps-nyuv2", "--data", data["nyuv2"], "--find-lr")
    assert capsys.readouterr().out == "the loss falls fastest at a learning rate of 0.00032: --learning-rate 0.00032\n"
    assert not (tmp_path / "runs").exists()


def test_a_recipe_with_an_unknown_key_is_refused(train, data, tmp_path):
    path = tmp_path / "mine" / "model.yml"
    text = (zoo.assets("models") / "hps-nyuv2" / "model.yml").read_text()
    write(path, text.replace("train:", "train:\n  momentum: 0.9").encode())
    with pytest.raises(SpecError, match=r"mine/model.yml: .*train: unknown field 'momentum'; known: epochs, "):
        train("--model", str(path), "--data", data["nyuv2"])


def test_data_of_another_row_is_refused(train, data):
    with pytest.raises(DataError, match=r"semseg: the number of classes is 19 in the data and 13 in the model"):
        train("--model", "hps-nyuv2", "--data", data["cityscapes"])
