"""The check that ratios hold between two runs: on reports made for it, and once for real (slow)."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.bench.rows import Report, Row
from emadeploy.contract.errors import DataError

PATH = Path(__file__).parents[1] / "tools" / "check_ratios.py"
_SPEC = importlib.util.spec_from_file_location("check_ratios", PATH)
tool = importlib.util.module_from_spec(_SPEC)
sys.modules["check_ratios"] = tool  # where dataclasses look their module up
_SPEC.loader.exec_module(tool)


def report(ratio: float | None, status: str = "ok") -> Report:
    rows = [Row("a", "t", "ok", 1.0, 1, against="a", speedup=1.0, speedup_end_to_end=1.0)]
    rows.append(Row("b", "t", status, 1.0, 1, against="a", speedup=ratio, speedup_end_to_end=ratio))
    return Report({}, {}, rows)


def test_ratios_that_move_are_told(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    runs = iter([report(2.0), report(2.09), report(2.0), report(2.2)])
    monkeypatch.setattr(tool, "measure_here", lambda order: next(runs))
    assert tool.main(["a", "b", "--json", str(tmp_path / "r.json")]) == 0
    assert "b, network: 2.000, then 2.090: +4.5 % holds" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["holds"] is True
    assert tool.main(["a", "b"]) == 1
    assert "b, end to end: 2.000, then 2.200: +10.0 % MOVED" in capsys.readouterr().out


def test_what_cannot_be_compared_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(DataError, match="no row has a ratio"):
        tool.held(report(None), report(None))
    runs = iter([report(2.0), report(None, "failed: killed")])
    monkeypatch.setattr(tool, "measure_here", lambda order: next(runs))
    assert tool.main(["a", "b"]) == 1
    assert capsys.readouterr().err == "check_ratios: b: failed: killed\n"


def test_it_runs_the_bench_twice(make_artifact: Callable[..., Path], tmp_path: Path, capsys) -> None:
    # What the ratio is, and whether it holds on this machine now, is not the test's to say.
    tool.main([str(make_artifact("a")), str(make_artifact("b")), "--min-time", "1", "--json", str(tmp_path / "r.json")])
    result = json.loads((tmp_path / "r.json").read_text())
    assert [(ratio["name"], ratio["what"]) for ratio in result["ratios"]] == [("b", "network"), ("b", "end to end")]
    assert result["holds"] == all(abs(ratio["moved"]) <= 0.05 for ratio in result["ratios"])
