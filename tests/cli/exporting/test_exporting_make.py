"""A basis whose kernels break a budget before any rounding gets more of them. Graph, engine and judge are fakes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.outcome import BudgetError, Trial
from emadeploy.cli.exporting import make
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.export.stage import Wanted

SPEC = ModelSpec("made", "emanet", (TaskSpec("depth"),), InputSpec(32, 32))
BUDGETS = parse_budgets(None, ("depth",))
FLOAT, OVER = {"depth": {"rel": 0.1}}, {"depth": {"rel": 0.2}}
MORE = "the kernels that were left out break a budget before any rounding: taking more"


@dataclass
class Judge:
    """The budgets hold in the graph numbered ``holds``, 0 being the first; in float from ``float_holds`` on."""

    holds: int
    float_holds: int = 99
    judged: list[int] = field(default_factory=list)
    in_float: list[int] = field(default_factory=list)
    usual: bool = True
    data: Any = field(default_factory=lambda: SimpleNamespace(description="rooms val"))

    def keep_within_budgets(self, int8: Any, source: Any, report: Any) -> Any:
        self.judged.append(int8.graph)
        if int8.graph < self.holds:
            trial = Trial((), 0.0, BUDGETS.judge(FLOAT, OVER), OVER)
            raise BudgetError(f"graph {int8.graph}", BUDGETS, [trial], 2)
        return int8.build(frozenset())

    def holds_in_float(self, int8: Any, source: Any, report: Any) -> bool:
        self.in_float.append(int8.graph)
        return bool(int8.graph >= self.float_holds)


Export = Callable[..., list[float | None]]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str]) -> Export:
    """Return a function that exports in int8, and returns the error that each graph's kernels were allowed."""
    errors: list[float | None] = []

    def export_graph(source: Any, wanted: Wanted, folder: Path, **_: Any) -> int:
        assert wanted.low_precision
        errors.append(wanted.basis_error)
        return len(errors) - 1

    manifest = SimpleNamespace(files={}, engine="onnxruntime", versions={}, compiled=True)

    class Int8:
        def __init__(self, graph: int, *_: Any) -> None:
            self.graph = graph
            self.artifact = self.judged = tmp_path / f"artifact-{graph}"
            self.seen = call.seen

        def build(self, keep: frozenset[str]) -> Any:
            return manifest

    def call(judge: Judge | None, **wanted: Any) -> list[float | None]:
        monkeypatch.setattr(make, "open_judge", lambda *_: judge)
        make.make_artifact("made", order(**wanted), report=lines.append)
        return errors

    def order(**wanted: Any) -> Order:
        return Order(target="onnxruntime-int8", output=tmp_path / "out", wanted=Wanted(**wanted))

    monkeypatch.setattr(make, "open_source", lambda *_, **__: SimpleNamespace(spec=SPEC, notes=()))
    monkeypatch.setattr(make, "calibration_frames", lambda *_: SimpleNamespace(raw=list, description="bundled"))
    monkeypatch.setattr(make, "note_health", lambda *given, **__: lines.append(f"health of {given[2]}") or manifest)
    monkeypatch.setattr(make, "keep_health", lambda *given: lines.append(f"health of {given[2]}, seen") or manifest)
    monkeypatch.setattr(make, "export_graph", export_graph)
    monkeypatch.setattr(make, "Int8", Int8)
    monkeypatch.setattr(make, "publish", lambda artifact, output: lines.append(f"{artifact.name} to {output.name}"))
    call.errors, call.seen = errors, []  # type: ignore[attr-defined]
    return call


def test_a_basis_that_holds_at_once_is_not_asked_twice(export, lines):
    judge = Judge(holds=0)
    assert export(judge, ctal="basis") == [0.02]
    assert (judge.judged, judge.in_float) == ([0], [])
    assert "artifact-0 to out" in lines


@pytest.mark.parametrize(("first", "errors"), [(None, [0.02, 0.005, 0.00125]), (0.08, [0.08, 0.02, 0.005])])
def test_kernels_that_break_a_budget_before_any_rounding_are_followed_by_more(export, lines, first, errors):
    judge = Judge(holds=2)
    assert export(judge, ctal="basis", basis_error=first) == pytest.approx(errors)
    assert (judge.judged, judge.in_float) == ([0, 1, 2], [0, 1])
    assert lines.count(MORE) == 2
    assert "artifact-2 to out" in lines


def test_where_rounding_does_the_harm_more_kernels_would_not_help(export, lines):
    judge = Judge(holds=9, float_holds=1)
    with pytest.raises(BudgetError, match="graph 1"):
        export(judge, ctal="basis")
    assert (export.errors, judge.in_float) == ([0.02, 0.005], [0, 1])
    assert lines.count(MORE) == 1
    assert not any("to out" in line for line in lines)


def test_it_ends_with_the_third(export):
    judge = Judge(holds=9)
    with pytest.raises(BudgetError, match="graph 2"):
        export(judge, ctal="basis")
    # After the last there is nothing left to decide.
    assert (judge.judged, judge.in_float) == ([0, 1, 2], [0, 1])


@pytest.mark.parametrize("form", [None, "exact", "basis:3"])
def test_where_kernels_are_not_chosen_by_an_error_there_is_one_graph(export, form):
    judge = Judge(holds=9)
    with pytest.raises(BudgetError, match="graph 0"):
        export(judge, ctal=form)
    assert (export.errors, judge.in_float) == ([None], [])


def test_where_nobody_judges_the_first_one_is_it(export, lines):
    assert export(None, ctal="basis") == [0.02]
    assert "artifact-0 to out" in lines


def test_the_range_of_health_is_of_the_frames_that_judged_where_they_are_of_one_kind_with_those_that_calibrate(
    export, lines
):
    export.seen.append("a health")
    export(Judge(holds=0))
    assert "health of rooms val, seen" in lines


@pytest.mark.parametrize("why", ["another kind", "nothing seen", "nobody judges"])
def test_else_the_calibration_frames_run_once_more_for_it(export, lines, why):
    if why != "nothing seen":
        export.seen.append("a health")
    export(None if why == "nobody judges" else Judge(holds=0, usual=why != "another kind"))
    assert [line for line in lines if "health" in line] == ["health of bundled"]
