"""`bench --html`: the page with pictures of what each artifact answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.bench.stats import spread
from emadeploy.cli.bench_parts.html import write_html
from emadeploy.contract.errors import DataError

SHARES = {"layers": {"fp32": 1.0}, "time": {"fp32": 1.0}, "compute": {"fp32": 1}, "microseconds": 5}
AUDIT = {"engine": "onnxruntime 1", "machine": None, "branches": {"backbone": SHARES}, "total": SHARES}


def row(name: str, artifact: Path | None, **fields: object) -> Row:
    times = spread([5.0] * 70)
    return Row(name, "onnxruntime-fp32", MEASURED, 1.0, 1, latency_ms=times, artifact=str(artifact), **fields)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes the page of rows and returns its text."""

    def write(*rows: Row, data: str | None = None) -> str:
        path = tmp_path / "page.html"
        write_html(path, Report({}, {}, list(rows)), data)
        return path.read_text(encoding="utf-8")

    return write


def test_pictures_of_every_engine_beside_the_truth(make_artifact: Callable[..., Path], page) -> None:
    one, two = make_artifact("one", audit=AUDIT), make_artifact("two")
    text = page(row("one", one), row("two", two))
    assert "What they answer" in text
    assert "Made rooms, whose truth is exact." in text
    assert text.count("<h4>one</h4>") == text.count("<h4>two</h4>") == text.count("<h4>ground truth</h4>") == 2
    assert text.count("<img") == 2 * (1 + 3 + 3 + 3)
    assert text.count("Shares of time, by onnxruntime 1 on no machine told.") == 1
    assert "of pixels right" in text


def test_the_frames_are_of_the_data_that_is_named(make_artifact: Callable[..., Path], page) -> None:
    text = page(row("one", make_artifact()), data="rooms:seed=3,count=1,size=64x96")
    assert "From rooms:seed=3,count=1,size=64x96." in text
    assert text.count("<h4>one</h4>") == 1


def test_what_has_no_artifact_here_has_no_pictures(make_artifact: Callable[..., Path], page, tmp_path: Path) -> None:
    there = make_artifact()
    rows = [row("elsewhere", tmp_path / "not" / "here"), row("failed", there), row("estimate", there, estimate=True)]
    rows[1] = Row("failed", "onnxruntime-fp32", "failed: killed", 1.0, 1, artifact=str(there))
    text = page(*rows)
    assert "What they answer" not in text
    assert "<img" not in text


def test_an_engine_that_cannot_answer_says_why_and_the_others_are_shown(
    make_artifact: Callable[..., Path], page
) -> None:
    good, small = make_artifact("good"), make_artifact("small", frame_size=(32, 32))
    text = page(row("good", good), row("small", small))
    assert text.count("<h4>good</h4>") == 2
    assert "<h4>small</h4>" not in text
    assert "small: frame is 64 x 96" in text


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_html(tmp_path / "file" / "page.html", Report({}, {}, []))
