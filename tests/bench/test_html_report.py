"""The page of a report: what is there to show is shown, what is not has no section, all of it complete in itself."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np

from emadeploy.bench.html_report import compose
from emadeploy.bench.page import Frame, Picture, Section, Strip, render
from emadeploy.bench.rows import MEASURED, Report, Row
from emadeploy.bench.stats import spread

NASTY = "<script>alert('x')</script> & \"quotes\""
TIMES = (100 + np.random.default_rng(1).random(70)).tolist()
ROW = Row(
    "m.int8",
    "openvino-int8",
    MEASURED,
    10.0,
    2,
    latency_ms=spread(TIMES),
    end_to_end_ms=spread(TIMES),
    stages_ms={"preprocess": 2.0, "inference": 100.0, "decode": 3.0},
    samples_ms={"inference": TIMES, "total": TIMES},
    tasks={"semseg": {"miou": 60.0}, "depth": {"abs": 0.2}},
    data="rooms val",
)
SHARES = {"layers": {"int8": 1.0}, "time": {"int8": 0.75, "fp32": 0.25}, "compute": {"int8": 12}, "microseconds": 9}
AUDIT = {"engine": "openvino 1", "machine": "a CPU", "branches": {"backbone": SHARES}, "total": SHARES}


def layers(count: int) -> dict[str, Any]:
    found = [
        {"name": f"backbone.{index}/Conv", "branch": "backbone", "kind": "Conv", "precision": "int8", "ms": 3.0}
        for index in range(count)
    ]
    branches = [{"branch": "backbone", "ms": 3.0 * count, "layers": count}]
    return {"total_ms": 3.0 * count, "runs": 9, "note": "Told by itself.", "branches": branches, "layers": found}


def page(*rows: Row, **more: Any) -> str:
    return render(compose(Report({"cpu": "a CPU", "flags": ["avx2"]}, {}, rows), **more))


def titles(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def plots(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text)]


def test_a_full_report_has_every_section() -> None:
    picture = Picture(np.zeros((4, 4, 3), np.uint8), "labels", flat=True)
    shown = Section("What they answer", "two rooms", [Frame("Frame 0", [Strip("m.int8", [picture])])])
    text = page(replace(ROW, layers=layers(20)), audits={"m.int8": AUDIT}, pictures=shown)
    assert titles(text) == [
        "Accuracy against latency",
        "Latency",
        "Stages",
        "Layers",
        "Precision by branch",
        "What they answer",
    ]
    assert len(plots(text)) == 2 + 2 + 1 + 1 + 1
    names = [svg.get("aria-labelledby") for svg in plots(text)]
    assert len({*names}) == len(names)
    assert "Told by itself. 5 more layers are in the json." in text
    assert "Shares of time, by openvino 1 on a CPU." in text
    assert "backbone, 12 int8: int8 75 %, fp32 25 %" in text
    assert "1 engine measured. Each ran in a process of its own" in text
    assert not [part for part in ("<script", "<link", "@import", "url(") if part in text]
    without_data = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert re.findall(r"https?://[^\"]*", without_data) == ["http://www.w3.org/2000/svg"] * 7  # a name, not a place


def test_what_is_not_there_has_no_section() -> None:
    bare = Row("a", "trt-int8", "failed: no GPU", 10.0, 2)
    assert titles(page(bare)) == []
    assert "0 engines measured; 1 failed." in page(bare)
    assert "a: failed: no GPU" in page(bare)
    assert titles(page(replace(ROW, samples_ms=None, stages_ms=None, tasks={}))) == []
    # Nothing ran while TensorRT compiled: layers are counted instead.
    untimed = {**SHARES, "time": {}}
    text = page(ROW, audits={"m.int8": {**AUDIT, "branches": {"ctal": untimed}, "total": untimed}})
    assert "Shares of layers, by openvino 1" in text


def test_estimates_and_doubts_stand_above_everything() -> None:
    estimate = replace(ROW, estimate=True, samples_ms=None, latency_ms={"p50": 30.0})
    text = page(estimate)
    assert "Estimates: computed from the layers of the artifacts. Nothing on this page was measured." in text
    assert "1 estimate, not measured." in text
    assert "in a process of its own" not in text
    assert "a CPU" not in text  # that of the machine that did the sums
    assert "m.int8 (estimate)" in text
    mixed = page(ROW, replace(estimate, name="other"))
    assert "1 engine measured; 1 estimate, not measured." in mixed
    assert "Nothing on this page" not in mixed
    assert 'class="s1 hollow"' in mixed
    assert "Unstable times, see the notes: m.int8." in page(replace(ROW, unstable="the clock fell"))
    assert "what they answer means nothing: m.int8." in page(replace(ROW, untrained=True))


def test_everything_is_escaped() -> None:
    row = replace(ROW, name=NASTY, layers=layers(1), unstable=NASTY, notes=(NASTY,), data=NASTY)
    text = page(row, replace(row, name="b", status=NASTY), audits={NASTY: AUDIT})
    assert "<script" not in text
    assert NASTY not in text
    assert plots(text)


def test_a_call_that_took_long_does_not_press_the_others_together() -> None:
    times = [*[100.0 + index % 5 for index in range(70)], 5000.0]
    text = page(replace(ROW, samples_ms={"inference": times}, latency_ms=spread(times)))
    histogram = next(svg for svg in plots(text) if "71 calls" in svg[1].text)
    bars = [element for element in histogram if element.tag.endswith("rect")]
    assert "between 100 and 5000 ms" in histogram[1].text
    assert len(bars) == 6  # one for each time, and the last
