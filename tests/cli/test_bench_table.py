"""The bench's table: every number whole at any width, every doubt said."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from emadeploy.bench.columns import columns, names, notes, reference
from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.bench.stats import spread
from emadeploy.cli.bench_parts.table import print_report


def row(name: str, target: str, ms: float, **fields: Any) -> Row:
    times = spread([ms] * 70)
    values: dict[str, Any] = {"latency_ms": times, "end_to_end_ms": times, "fps": 1e3 / ms, "peak_memory_mb": 273.4}
    values |= {"against": "m.ort-fp32", "speedup": 812.5 / ms, "cold_start_s": 1.25}
    return Row(name, target, MEASURED, 38.64, 2, **{**values, **fields})


ROWS = [
    row("m.ort-fp32", "onnxruntime-fp32", 812.5, tasks={"semseg": {"miou": 61.23}, "depth": {"abs": 0.181}}, data="d"),
    row("m.openvino-fp32", "openvino-fp32", 640.25, tasks={"semseg": {"miou": 61.0}, "depth": {"abs": 0.2}}, data="d"),
    row(
        "m.openvino-int8",
        "openvino-int8",
        190.5,
        tasks={"semseg": {"miou": 60.5}, "depth": {"abs": 0.2}},
        data="d",
        unstable="the clock fell",
        energy_j=0.4217,
    ),
    Row("m.trt-int8", "trt-int8", "failed: DeviceError: [no] GPU", 10.0, 2),
    Row(
        "orin-nano",
        "trt-int8",
        MEASURED,
        10.0,
        None,
        estimate=True,
        latency_ms={"p50": 31.25, "p90": None, "bound": 4.5},
        fps=32.0,
    ),
]
REPORT = Report({}, {}, ROWS)


def printed(report: Report, width: int) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width, highlight=False))
    return file.getvalue()


def cells(report: Report, *head: str) -> tuple[str, ...]:
    return next(column.cells for column in columns(report) if column.head == head)


def test_every_line_says_what_it_is() -> None:
    assert names(REPORT) == [
        "m.ort-fp32",
        "m.openvino-fp32",
        "m.openvino-int8 !",
        "m.trt-int8 (failed)",
        "orin-nano (estimate)",
    ]


def test_the_columns() -> None:
    assert cells(REPORT, "network", "p50 ms") == ("812.5", "640.2", "190.5", "–", "31.2")
    assert cells(REPORT, "network", "p90 ms") == ("812.5", "640.2", "190.5", "–", "–")
    assert cells(REPORT, "network", "at least", "ms") == ("–", "–", "–", "–", "4.50")
    assert cells(REPORT, "fps") == ("1.23", "1.56", "5.25", "–", "32.0")
    assert cells(REPORT, "network", "ratio") == ("1.00×", "1.27×", "4.27×", "–", "–")
    # Against fp32 of the same engine; that of another where its own has none.
    assert cells(REPORT, "semseg", "miou % ↑") == ("61.23", "61", "60.5 (-0.5)", "–", "–")
    assert cells(REPORT, "depth", "abs ↓") == ("0.181", "0.2", "0.2 (0)", "–", "–")
    assert cells(REPORT, "energy", "J/frame") == ("–", "–", "0.422", "–", "–")
    heads = [" ".join(column.head) for column in columns(REPORT)]
    assert not any("p99" in head or "GPU" in head for head in heads)  # nobody has them


def test_depth_is_in_its_unit_where_all_share_one() -> None:
    def head(*units: str) -> str:
        rows = [replace(ROWS[0], units={"depth": unit}) for unit in units]
        return next(column.head[1] for column in columns(Report({}, {}, rows)) if column.head[0] == "depth")

    assert head("metre", "metre") == "abs m ↓"
    assert head("inverse_depth") == "abs inverse depth ↓"
    assert head("metre", "inverse_depth") == "abs ↓"


def test_fp32_is_held_against_nothing_and_others_against_the_same_data() -> None:
    trt = row("t", "trt-fp16", 5.0, tasks={"depth": {"abs": 0.2}}, data="d")
    assert reference(ROWS[0], ROWS) is None
    assert reference(ROWS[2], ROWS) is ROWS[1]
    assert reference(trt, ROWS) is ROWS[0]
    assert reference(replace(trt, data="other"), ROWS) is None


def test_the_notes_say_why() -> None:
    found = list(notes(replace(REPORT, rows=[*ROWS, replace(ROWS[0], name="x", untrained=True, notes=("a note",))])))
    assert "m.trt-int8: failed: DeviceError: [no] GPU" in found
    assert "! m.openvino-int8: its times are not to be trusted: the clock fell" in found
    assert (
        "lines that say estimate: computed from the layers of the artifact, not measured; p50 is the likely value"
        in found
    )
    assert "untrained, random weights, good for timing alone: x" in found
    assert "x: a note" in found
    assert sum(note.startswith("ratio: ") for note in found) == 1
    assert found[-1] == "– or no column: too few calls to tell it (p99 662): --percentile 99"
    twice = [replace(ROWS[0], notes=("same",)), replace(ROWS[1], notes=("same", "own"))]
    said = list(notes(Report({}, {}, twice)))
    assert "all: same" in said
    assert "m.openvino-fp32: own" in said
    assert "m.ort-fp32, m.openvino-fp32: same" in notes(Report({}, {}, [*twice, ROWS[2]]))
    assert "accuracy on d; in brackets the difference from fp32" in found
    assert "accuracy on d" in list(notes(Report({}, {}, [ROWS[2]])))
    estimates = Report({}, {}, [ROWS[-1]])
    assert list(notes(estimates)) == [
        "all lines are estimates: computed from the layers of the artifact, not measured; p50 is the likely value"
    ]
    no_ratio = replace(ROWS[0], speedup=None, incomparable="threads 2 against 1")
    assert "m.ort-fp32: no ratio: threads 2 against 1" in notes(Report({}, {}, [no_ratio]))


@pytest.mark.parametrize("width", [60, 80, 81, 97, 120, 160, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    text = printed(REPORT, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    wanted = [cell for column in columns(REPORT) for cell in column.cells]
    found = re.split(r"  +|\n", text)
    for cell in {*wanted}:
        assert sum(part.strip() == cell for part in found) >= wanted.count(cell), cell


def test_long_names_are_broken_and_not_cut() -> None:
    name = "a-model-with-quite-a-name.onnxruntime-fp32" + "x" * 60
    text = printed(Report({}, {}, [replace(ROWS[0], name=name)]), 80)
    lines = [line.split("  ")[0].strip() for line in text.split("ratio: ")[0].splitlines()]
    assert name in "".join(lines)


def test_a_report_without_rows_is_an_empty_table() -> None:
    assert "engine" in printed(Report({}, {}, []), 80)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_times_by_layer_follow_the_notes(width: int) -> None:
    slow = {"name": "ctal.spread.product/MatMul", "kind": "Gemm", "branch": "ctal", "precision": "int8", "ms": 12.0}
    layers = {
        "total_ms": 16.0,
        "runs": 9,
        "note": "Told by itself.",
        "branches": [{"branch": "backbone", "ms": 4.0, "layers": 1}, {"branch": "ctal", "ms": 12.0, "layers": 1}],
        "layers": [slow, {**slow, "name": "backbone.0/Conv", "branch": "backbone", "ms": 4.0}] * 6,
    }
    text = printed(Report({}, {}, [replace(ROWS[0], layers=layers), replace(ROWS[1], layers=layers)]), width)
    assert text.count("Told by itself.") == 1  # of both
    assert "…" not in text
    assert "m.ort-fp32: where" in text
    assert re.search(r"backbone +1 +4\.00 +25\.0%", text)
    assert re.search(r"ctal +1 +12\.0 +75\.0%", text)
    assert text.count("int8)") == 16  # of twelve each
