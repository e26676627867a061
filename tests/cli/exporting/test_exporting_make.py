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

        def build(self, keep: frozenset[str]) -> Any:
            return manifest

    def call(judge: Judge | None, **wanted: Any) -> list[float | None]:
        monkeypatch.setattr(make, "open_judge", lambda *_: judge)
        make.make_artifact("made", order(**wanted), report=lines.append)
        return errors

    def order(**wanted: Any) -> Order:
        return Order(target="onnxruntime-int8", output=tmp_path / "out", wanted=Wanted(**wanted))

    monkeypatch.setattr(make, "open_source", lambda *_, **__: SimpleNamespace(spec=SPEC, notes=()))
    monkeypatch.setattr(make, "calibration_frames", lambda *_: SimpleNamespace(raw=list))
    monkeypatch.setattr(make, "note_health", lambda *_, **__: manifest)
    monkeypatch.setattr(make, "export_graph", export_graph)
    monkeypatch.setattr(make, "Int8", Int8)
    monkeypatch.setattr(make, "publish", lambda artifact, output: lines.append(f"{artifact.name} to {output.name}"))
    call.errors = errors  # type: ignore[attr-defined]
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
