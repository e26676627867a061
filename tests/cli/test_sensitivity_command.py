"""`emadeploy sensitivity`: what it measures, writes and refuses. The engine is a fake whose harms are known."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emadeploy.calibrate.budgets import parse_budgets
from emadeploy.calibrate.units import Unit
from emadeploy.cli import app, sensitivity
from emadeploy.cli.sensitivity import First
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.sample import Sample

pytest.importorskip("onnx")
pytest.importorskip("torch")


class Data:
    description, tasks = "made:up val", ("depth",)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), np.zeros((32, 32, 3), np.uint8), {})


@pytest.fixture
def measured(monkeypatch) -> list[tuple[frozenset[str], int]]:
    """Put a network of two sections in the place of graph and engine; return what was measured, on how many frames."""
    from emadeploy.cli.exporting import int8, judge, make
    from emadeploy.export import source, stage

    seen: list[tuple[frozenset[str], int]] = []

    @dataclass(frozen=True)
    class Judge:
        data: object = Data()
        budgets: object = parse_budgets(None, ("depth",))

        def reference(self, *_args: object) -> dict:
            return {"tasks": {"depth": {"rel": 0.1}}}

    class Int8:
        units = (Unit("b", ("b/Conv",), "backbone", 3.0), Unit("h", ("h/Conv",), "heads.depth", 1.0))

        def __init__(self, *_args: object) -> None:
            pass

        def measure(self, keep: frozenset[str], data: Data) -> dict:
            seen.append((keep, len(data)))
            return {"depth": {"rel": 0.1 if "h/Conv" in keep else 0.11}}

        def probe(self, keep: frozenset[str]) -> dict[str, float]:
            return {"depth": 0.25}

    spec = SimpleNamespace(name="tiny", task_names=("depth",))
    monkeypatch.setattr(source, "open_source", lambda name: SimpleNamespace(spec=spec))
    monkeypatch.setattr(make, "calibration_frames", lambda *_: SimpleNamespace(facts=lambda: {"count": 9}))
    monkeypatch.setattr(judge, "open_judge", lambda *_: Judge())
    monkeypatch.setattr(stage, "export_graph", lambda *_args, **_named: SimpleNamespace(model=spec))
    monkeypatch.setattr(int8, "Int8", Int8)
    monkeypatch.setattr("emadeploy.cli.progress.progress", lambda what: nullcontext(lambda done, total: None))
    return seen


def test_every_section_is_measured_printed_written_and_drawn(measured, tmp_path: Path, capsys):
    sensitivity.command(None, "ort-int8", frames=2, json_file=tmp_path / "s.json", picture=tmp_path / "s.png")
    backbone, head = frozenset({"b/Conv"}), frozenset({"h/Conv"})
    # Plain int8, nothing in it, each section alone in it, each section left out.
    keeps = [frozenset(), backbone | head, head, backbone, backbone, head]
    assert measured == [(keep, 2) for keep in keeps]
    record = json.loads((tmp_path / "s.json").read_text())
    assert (record["target"], record["data"], record["frames"]) == ("onnxruntime-int8", "made:up val, the first 2", 2)
    assert record["calibration"] == {"count": 9}
    assert (record["plain"]["depth"], record["floor"]["depth"]) == pytest.approx((10.0, 0.0))
    assert [row["alone"]["depth"] for row in record["sections"]] == pytest.approx([0.0, 10.0])
    assert [row["without"]["depth"] for row in record["sections"]] == pytest.approx([10.0, 0.0])
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "heads.depth" in capsys.readouterr().out


def test_quick_leaves_out_the_second_number(measured, capsys):
    sensitivity.command(None, "openvino-int8", quick=True)
    assert len(measured) == 4
    assert "without" not in capsys.readouterr().out


def test_a_target_without_int8_is_refused(measured):
    with pytest.raises(SpecError, match=r"openvino-bf16 has nothing in int8.*int8 targets: onnxruntime-int8, "):
        sensitivity.command(None, "openvino-bf16")
    assert measured == []


@pytest.mark.parametrize("option", ["json_file", "picture"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(measured, tmp_path: Path, option: str):
    with pytest.raises(DataError, match="there is no folder"):
        sensitivity.command(None, "openvino-int8", **{option: tmp_path / "nowhere" / "file"})
    assert measured == []


def test_the_first_of_the_data_say_so():
    first = First(Data(), 3)
    assert (len(first), len(First(Data(), 9)), first.tasks) == (3, 5, ("depth",))
    assert first.description == "made:up val, the first 3"
    assert [sample.name for sample in first] == ["0", "1", "2"]


def test_the_command_line_has_it():
    assert app.COMMANDS["sensitivity"] == "sensitivity"
