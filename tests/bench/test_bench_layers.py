"""Times by layer in a report: each artifact in a process of its own; what fails is a note, and the others go on."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emadeploy.bench import layers as module
from emadeploy.bench.layers import summary, with_layers
from emadeploy.bench.report import report_of
from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.runtime.profile import LayerTime


def row(artifact: Path | None, **fields: object) -> Row:
    values = {"mode": {"device": "cpu"}, "artifact": str(artifact), **fields}
    return Row("a", "onnxruntime-fp32", MEASURED, 1.0, 1, **values)


def test_the_summary_adds_up_by_branch_and_sorts_by_time() -> None:
    layers = [
        LayerTime("backbone.0/Conv", "Conv", "backbone", "fp32", 1.0),
        LayerTime("ctal/MatMul", "MatMul", "ctal", "int8", 4.0),
        LayerTime("backbone.1/Conv", "Conv", "backbone", "fp32", 2.0),
    ]
    found = summary(layers)
    assert found["total_ms"] == 7.0
    assert found["branches"] == [
        {"branch": "backbone", "ms": 3.0, "layers": 2},
        {"branch": "ctal", "ms": 4.0, "layers": 1},
    ]
    assert [layer["ms"] for layer in found["layers"]] == [4.0, 2.0, 1.0]
    assert found["layers"][0] == {
        "name": "ctal/MatMul",
        "kind": "MatMul",
        "branch": "ctal",
        "precision": "int8",
        "ms": 4.0,
    }


def test_a_row_gets_the_layers_of_its_artifact(make_artifact: Callable[..., Path]) -> None:
    seen: list[tuple[int, int]] = []
    (found,) = with_layers([row(make_artifact())], progress=lambda done, total: seen.append((done, total)))
    assert found.notes == ()
    assert "Conv" in {layer["kind"] for layer in found.layers["layers"]}
    assert found.layers["total_ms"] == pytest.approx(sum(branch["ms"] for branch in found.layers["branches"]))
    assert seen == [(1, 1)]
    data = Report({}, {}, [found]).to_dict()
    assert report_of(data).rows[0].layers == found.layers


def test_an_artifact_that_cannot_be_profiled_is_a_note_and_the_others_go_on(make_artifact: Callable[..., Path]) -> None:
    altered, good = make_artifact("altered"), make_artifact("good")
    with (altered / "model.onnx").open("ab") as file:
        file.write(b" ")
    bad, fine = with_layers([row(altered, notes=("first",)), row(good)])
    assert bad.layers is None
    assert bad.notes[0] == "first"
    assert bad.notes[1].startswith("no times by layer: ArtifactError: ")
    assert fine.layers is not None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "its process ended with status -9 and no answer"),
        ("print('noise')", "its process ended with status 0 and no answer"),
        ("print('[1]')", "its process ended with status 0 and no answer"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_process_that_fails_is_a_note(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    (found,) = with_layers([row(make_artifact())], command=(sys.executable, "-c", code))
    assert (found.layers, found.notes) == (None, (f"no times by layer: {said}",))


def test_rows_without_an_artifact_here_are_left_as_they_are(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    there = row(make_artifact())
    rows = [
        row(tmp_path / "nowhere"),
        replace(there, artifact=None),
        replace(there, estimate=True),
        replace(there, status="failed: killed"),
        replace(there, target="torch-eager"),
    ]
    assert with_layers(rows, command=("no-such-command",)) == rows
