"""The network in float32: a shipped record is used for just what it was measured of, and for nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
from emadeploy import zoo
from emadeploy.cli.exporting import reference as reference_module
from emadeploy.cli.exporting.judge import COUNTS, rooms_of
from emadeploy.cli.exporting.reference import SHIPPED, checksum, facts_of, float32_record, measure, shipped
from emadeploy.contract.spec import InputSpec
from emadeploy.data.rooms.render import GENERATOR_VERSION
from emadeploy.export.source import open_source

TASKS = ("semseg", "depth", "normals")
RECORD = {"schema": 1, "tasks": {"depth": {"rel": 0.25}}}


@pytest.fixture
def models(source, told, tmp_path: Path) -> Path:
    """Return a folder of models, with a record of the network of these tests on the frames of these tests."""
    facts = facts_of(source, TASKS, told)
    write(tmp_path / "models", source, [{"of": facts, "on": "a test", "sha256": checksum(facts, RECORD)}])
    return tmp_path / "models"


def write(models: Path, source, entries: list[dict]) -> None:
    folder = models / source.spec.name
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"schema": 1, "records": [{"record": RECORD, **entry} for entry in entries]}
    (folder / SHIPPED).write_text(json.dumps(whole))


def test_a_record_of_just_this_is_used_and_says_where_it_is_from(source, told, models):
    found = shipped(source, TASKS, told, models)
    assert found == {**RECORD, "measured": f"on a test, and shipped with {source.spec.name}"}


def test_with_a_shipped_record_nothing_is_exported_or_measured(
    source, told, models, tmp_path, lines, report, monkeypatch
):
    monkeypatch.setattr(zoo, "assets", lambda kind: models)
    monkeypatch.setattr(reference_module, "measure", lambda *_: pytest.fail("measured all the same"))
    assert float32_record(source, TASKS, told, tmp_path, report)["tasks"] == RECORD["tasks"]
    assert lines == [f"float32 on told:8 (4 frames): the record that ships with {source.spec.name}"]


def test_what_does_not_ship_is_measured_here(source, told, tmp_path, lines, report):
    found = float32_record(source, TASKS, told, tmp_path, report)
    assert found["measured"] == "where it was exported"
    assert found["tasks"] == measure(source, TASKS, told, tmp_path / "again", report)["tasks"]
    assert lines == ["evaluating float32 on told:8 (4 frames)"]


class Other:
    """The same frames under another name, or fewer of them."""

    def __init__(self, told, description: str, count: int) -> None:
        self.description, self.tasks, self.specs = description, told.tasks, told.specs
        self.samples = told.samples[:count]

    def __len__(self) -> int:
        return len(self.samples)


@pytest.mark.parametrize("differs", ["weights", "size", "tasks", "order of tasks", "data", "frames", "generator"])
def test_a_record_of_anything_else_is_not_used(source, told, models, differs, monkeypatch):
    tasks, data = TASKS, told
    if differs == "weights":
        source = replace(source, record={**source.record, "sha256": "1" * 64})
    elif differs == "size":
        larger = replace(source.spec, input=InputSpec(2 * source.spec.input.height, source.spec.input.width))
        source = SimpleNamespace(spec=larger, record=source.record)
    elif differs == "tasks":
        tasks = TASKS[:2]
    elif differs == "order of tasks":
        tasks = TASKS[::-1]
    elif differs == "data":
        data = Other(told, "told:9", len(told))
    elif differs == "frames":
        data = Other(told, told.description, len(told) - 1)
    else:
        monkeypatch.setattr(reference_module, "GENERATOR_VERSION", GENERATOR_VERSION + 1)
    assert shipped(source, tasks, data, models) is None


@pytest.mark.parametrize("damage", ["number", "cut", "list", "no entry", "no record", "gone"])
def test_a_damaged_record_is_not_used(source, told, models, damage):
    path = models / source.spec.name / SHIPPED
    data = json.loads(path.read_text())
    if damage == "number":
        data["records"][0]["record"]["tasks"]["depth"]["rel"] = 0.3
    elif damage == "no entry":
        data["records"] = []
    elif damage == "no record":
        del data["records"][0]["record"]
    text = json.dumps(data)
    path.write_text({"cut": text[:-9], "list": "[]"}.get(damage, text))
    if damage == "gone":
        path.unlink()
    assert shipped(source, TASKS, told, models) is None


@pytest.fixture(scope="module")
def zoo_model():
    return open_source("emanet-rooms")


def rooms(source, count: int):
    return Other(
        SimpleNamespace(tasks=TASKS, specs=(), samples=[None] * count), f"{rooms_of(source.spec, count)} val", count
    )


def test_the_records_of_the_zoo_are_of_its_weights_and_of_the_rooms_that_judge(zoo_model):
    """Red where weights, model.yml or the generator changed, and tools/ship_float32.py was not run again."""
    for count in COUNTS:
        found = shipped(zoo_model, zoo_model.spec.task_names, rooms(zoo_model, count))
        assert found is not None, f"no record on {count} rooms: run python tools/ship_float32.py emanet-rooms"
        assert found["frames"] == count
    card = json.loads((zoo.assets("models") / "emanet-rooms" / "card.json").read_text(encoding="utf-8"))
    for task, row in card["accuracy"]["tasks"].items():
        for name, value in row.items():
            # The card is PyTorch's on the same 200 rooms.
            assert found["tasks"][task][name] == pytest.approx(value, rel=2e-3), (task, name)


@pytest.mark.slow
def test_the_record_of_the_zoo_is_what_is_measured_here(zoo_model, tmp_path, report):
    from emadeploy.data.source import open_data

    tasks = zoo_model.spec.task_names
    data = open_data(rooms_of(zoo_model.spec, COUNTS[0]), split="val", workers=2)
    found, wanted = measure(zoo_model, tasks, data, tmp_path, report), shipped(zoo_model, tasks, data)
    for task, row in wanted["tasks"].items():
        assert found["tasks"][task] == pytest.approx(row, rel=1e-3), task
