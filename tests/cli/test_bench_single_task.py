"""`bench --single-task`: a network per task against one for all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emadeploy import zoo
from emadeploy.bench.entrants import entrant
from emadeploy.bench.race import Effort, race
from emadeploy.bench.rows import Row
from emadeploy.cli.bench_parts import single_task as module
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.bench_parts.remote import flags
from emadeploy.cli.bench_parts.single_task import single_task, with_costs
from emadeploy.contract.errors import SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import TaskSpec

FRAME = np.zeros((48, 80, 3), np.uint8)
TASKS = ("semseg", "depth", "normals")
Make = Callable[..., Path]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> list[SimpleNamespace]:
    """Put ready artifacts in the place of those that are built, and return what was asked for."""
    asked: list[SimpleNamespace] = []

    class Ready:
        def __init__(self, source: str, *, size=None, untrained=False, tasks=(), report=print) -> None:
            spec = zoo.load_spec(source) if untrained else SimpleNamespace(network=source, task_names=TASKS)
            self.source = SimpleNamespace(spec=spec)
            self._asked = SimpleNamespace(source=source, untrained=untrained, tasks=tasks, spec=spec)

        def build(self, wishes):
            self._asked.wishes = wishes
            asked.append(self._asked)
            return {wish.name: make_artifact(wish.name, source={"untrained": True}) for wish in wishes}

    monkeypatch.setattr(module, "Engines", Ready)
    return asked


def test_a_network_per_task_and_all_in_turn(engines, make_artifact: Make, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    multi = entrant("multi", make_artifact("multi"), FRAME, threads=1)
    entrants = [multi, *single_task(multi)]
    assert [each.row.name for each in entrants[1:]] == [*(f"{task} alone" for task in TASKS), "3 networks"]
    for ask, task in zip(engines, TASKS, strict=True):
        assert ask.untrained
        assert ask.tasks == (task,)
        assert ask.spec.network == "stl"
        assert ask.spec.task_names == TASKS
        assert ask.spec.input == Manifest.read(tmp_path / "multi").model.input
        assert [wish.target for wish in ask.wishes] == ["onnxruntime-fp32"]
    rows = with_costs(race(entrants, Effort(rounds=3)), "multi")
    base, *alone, together = rows
    assert [row.status for row in rows] == ["ok"] * 5
    assert together.engine["networks"] == 3
    assert together.size_mb == pytest.approx(sum(row.size_mb for row in alone))
    assert list(together.stages_ms) == ["preprocess", "inference", "decode"]
    # Compared with the one network, although their weights are random and its are not: they are said to be.
    assert together.speedup_end_to_end is not None
    assert together.untrained
    assert not base.untrained
    assert "of multi, one network for all tasks, they take" in together.notes[-1]
    assert "times the time per frame" in together.notes[-1]
    assert "times the disk" in together.notes[-1]


def test_the_weights_of_a_checkpoint(engines, make_artifact: Make) -> None:
    multi = entrant("multi", make_artifact("multi"), FRAME)
    single_task(multi, checkpoint="stl")
    assert [(ask.source, ask.untrained, ask.tasks) for ask in engines] == [("stl", False, (task,)) for task in TASKS]
    with pytest.raises(SpecError, match=r"is a hps network .*takes one of network stl"):
        single_task(multi, checkpoint="hps")


def test_what_has_one_task_or_a_frame_size_is_refused(make_artifact: Make, tiny_spec) -> None:
    lone = make_artifact("lone", model=replace(tiny_spec, tasks=(TaskSpec("depth"),)))
    with pytest.raises(SpecError, match="lone answers depth alone"):
        single_task(entrant("lone", lone, FRAME))
    framed = make_artifact("framed", frame_size=(48, 80))
    with pytest.raises(SpecError, match="framed takes frames of one size"):
        single_task(entrant("framed", framed, FRAME))


def row(name: str, **fields: object) -> Row:
    return replace(Row(name, "onnxruntime-fp32", "ok", 10.0, 1, mode={"tasks": [name.split()[0]]}), **fields)


def test_the_costs_are_those_of_the_rows() -> None:
    multi = row("multi", end_to_end_ms={"p50": 10.0}, energy_j=1.0, peak_memory_mb=100.0)
    depth = row("depth alone", tasks={"depth": {"rmse": 0.5}}, data="rooms")
    random = row("semseg alone", tasks={"semseg": {"miou": 1.0}}, untrained=True)
    fields = {"end_to_end_ms": {"p50": 25.0}, "energy_j": 3.0, "peak_memory_mb": 150.0, "engine": {"networks": 2}}
    together = row("2 networks", size_mb=20.0, **fields)
    *_, judged, noise, costs = with_costs([multi, depth, random, together], "multi")
    assert costs.notes == (
        "of multi, one network for all tasks, they take 2.50 times the time per frame, 3.00 times the energy, "
        "1.50 times the memory, 2.00 times the disk",
    )
    assert costs.tasks == {"depth": {"rmse": 0.5}}
    assert judged.tasks
    assert noise.tasks == {}  # of random weights


def test_a_row_that_failed_costs_nothing() -> None:
    failed = row("2 networks", status="failed: killed", engine={"networks": 2})
    assert with_costs([row("multi", end_to_end_ms={"p50": 1.0}), failed], "multi")[1].notes == ()


def test_a_checkpoint_goes_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="goes with --single-task"):
        BenchOrder(single_task_from="runs/stl/best")
    order = BenchOrder(single_task=True, single_task_from="runs/stl/best", torch=("eager",), threads=2)
    assert flags(order) == [
        *("--device", "auto", "--threads", "2", "--single-task-from", "runs/stl/best", "--torch", "eager"),
        "--single-task",
    ]


@pytest.mark.slow
def test_the_networks_are_built(make_artifact: Make, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    multi = entrant("multi", make_artifact("multi"), FRAME, threads=1)
    *alone, together = single_task(multi)
    for each, task in zip(alone, TASKS, strict=True):
        manifest = Manifest.read(Path(each.row.artifact))
        assert [tensor.name for tensor in manifest.outputs] == [task]
        assert manifest.model.network == "stl"
        assert set(manifest.precision) == {f"backbone.{task}", f"heads.{task}"}  # no other backbone in it
    assert race([together], Effort(rounds=1))[0].status == "ok"
