"""Plots: well-formed, read aloud, escaped, and with everything where its number says."""

import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.bench.plots import Bar, Point, bars, histogram, scatter
from emadeploy.bench.svg import log_ticks, tag, ticks

NASTY = "<script>alert('x')</script> & \"quotes\""
SVG = "{http://www.w3.org/2000/svg}"
POSITIVE = st.floats(1e-3, 1e5)


def parsed(text: str) -> ET.Element:
    """Return the picture as a tree; it has a title and a description, and refers to both."""
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    ids = [root[index].get("id") for index in (0, 1)]
    assert [root[index].tag for index in (0, 1)] == [f"{SVG}title", f"{SVG}desc"]
    assert root.get("aria-labelledby").split() == ids
    assert root[0].text
    assert root[1].text
    return root


def found(root: ET.Element, name: str, cls: str = "") -> list[Any]:
    return [element for element in root.iter(f"{SVG}{name}") if cls in element.get("class", "").split() or not cls]


def texts(root: ET.Element) -> list[str]:
    return [element.text for element in found(root, "text")]


def test_a_histogram_counts_every_call() -> None:
    samples = [10.0] * 30 + [20.0] * 15 + [99.0]
    root = parsed(histogram(NASTY, samples, {"p50": 10.0, "p90": 20.0}, (10.0, 20.0)))
    first, last = found(root, "rect")
    # As high as its share of the tallest bin; what is beyond the extent is in the last.
    assert float(last.get("height")) / float(first.get("height")) == pytest.approx(16 / 30, abs=0.01)
    assert float(first.get("x")) < float(last.get("x"))
    assert len(found(root, "line", "mark")) == 2
    assert {NASTY, "p50", "p90", "ms"} <= set(texts(root))
    assert root[0].text == NASTY
    assert root[1].text == "46 calls between 10 and 99 ms; p50 10 ms, p90 20 ms"


def test_a_histogram_of_one_time_and_names_that_would_touch() -> None:
    root = parsed(histogram("a", [5.0], {"p50": 5.0, "p90": 5.0}, (5.0, 5.0)))
    assert len(found(root, "rect")) == 1
    assert len(found(root, "line", "mark")) == 2
    assert "p90" not in texts(root)
    close = 100.0, math.nextafter(100.0, 200)
    assert len(found(parsed(histogram("a", close, {"p50": 100.0}, close)), "rect")) == 1
    points = [Point("one", close[0], close[1]), Point("two", close[1], close[0])]
    assert len(found(parsed(scatter("t", points, "x", "y", higher_is_better=True)), "circle")) == 2
    assert "p90 5 ms" in root[1].text


@pytest.mark.parametrize("higher", [True, False])
def test_in_a_scatter_plot_better_is_up_and_left(higher: bool) -> None:
    good, bad = (90.0, 10.0) if higher else (10.0, 90.0)
    points = [Point("good", 10.0, good), Point("bad", 1000.0, bad, 900.0, 1100.0, hollow=True)]
    root = parsed(scatter("t", points, "ms", "miou", higher_is_better=higher))
    one, two = found(root, "circle")
    assert float(one.get("cy")) < float(two.get("cy"))
    assert float(one.get("cx")) < float(two.get("cx"))
    assert ("hollow" in one.get("class"), "hollow" in two.get("class")) == (False, True)
    (whisker,) = found(root, "line", "whisker")
    assert float(whisker.get("x1")) < float(two.get("cx")) < float(whisker.get("x2"))
    assert {"good", "bad", "ms", "miou", "better: up and left"} <= set(texts(root))
    assert f"good: 10, {good:g}" in root[1].text


def test_labels_do_not_touch_where_there_is_room() -> None:
    points = [Point(name, 100.0 + index, 50.0) for index, name in enumerate(("first", "second", "third"))]
    root = parsed(scatter("t", points, "ms", "miou", higher_is_better=True))
    labels = {element.text: element for element in found(root, "text", "strong")}
    boxes = []
    for name in ("first", "second", "third"):
        x, y, anchor = float(labels[name].get("x")), float(labels[name].get("y")), labels[name].get("text-anchor")
        wide = 7.2 * len(name)
        start = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
        boxes.append((start, y - 10, start + wide, y + 2))
    for index, one in enumerate(boxes):
        for two in boxes[index + 1 :]:
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


@given(st.lists(st.tuples(st.text(max_size=8), POSITIVE, st.floats(-100, 100)), min_size=1, max_size=9), st.booleans())
def test_any_points_make_a_picture_that_holds_them(values: list[tuple[str, float, float]], higher: bool) -> None:
    points = [Point(NASTY + str(index), x, y) for index, (_, x, y) in enumerate(values)]
    root = parsed(scatter("t", points, "x", "y", higher_is_better=higher))
    _, _, width, height = map(float, root.get("viewBox").split())
    for circle in found(root, "circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
    assert len(found(root, "circle")) == len(values)


@given(st.lists(POSITIVE, min_size=1, max_size=60))
def test_any_times_make_a_histogram(samples: list[float]) -> None:
    root = parsed(histogram("t", samples, {"p50": samples[0]}, (min(samples), max(samples))))
    assert all(0 <= float(rect.get("x")) <= 560 for rect in found(root, "rect"))


def test_bars_are_as_long_as_their_parts() -> None:
    found_bars = [Bar(NASTY, {"a": 30.0, "b": 10.0}, "40 ms"), Bar("half", {"b": 20.0}, "20 ms"), Bar("none", {}, "")]
    root = parsed(bars("t", found_bars, {"a": 0, "b": 3}, "ms"))
    rects = [rect for rect in found(root, "rect") if rect.get("rx") is None]
    widths = [float(rect.get("width")) for rect in rects]
    assert widths == pytest.approx([3 * widths[1], widths[1], 2 * widths[1]], abs=0.2)
    assert [rect.get("class") for rect in rects] == ["s0", "s3", "s3"]
    assert float(rects[1].get("x")) == pytest.approx(float(rects[0].get("x")) + widths[0], abs=0.2)
    assert {"a", "b", NASTY, "half", "40 ms"} <= set(texts(root))  # the first two in the legend
    assert "half, 20 ms: b 20 ms" in root[1].text
    assert not found(parsed(bars("t", [Bar("none", {}, "")], {}, "ms")), "rect")


def test_text_is_escaped() -> None:
    text = tag("text", NASTY, cls=NASTY, x=1.25)
    element = ET.fromstring(text)
    assert (element.text, element.get("class"), element.get("x")) == (NASTY, NASTY, "1.2")
    assert "<script" not in text
    assert tag("line", x1=3.0) == '<line x1="3"/>'


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    values = ticks(low, low + span)
    assert 2 <= len(values) <= 12
    assert all(low - 1e-6 * span - 1e-9 * abs(low) <= v <= low + span * (1 + 1e-6) + 1e-9 * abs(low) for v in values)


@given(POSITIVE, st.floats(1.05, 1e5))
def test_ticks_of_ratios(low: float, factor: float) -> None:
    values = log_ticks(low, low * factor)
    assert 2 <= len(values) <= 12
    assert values == sorted(values)
    assert all(value > 0 and math.isfinite(value) for value in values)
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert log_ticks(1, 1000) == [1, 10, 100, 1000]
