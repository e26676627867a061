"""Two reports compared: better, worse, noise, and what is refused with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from emadeploy.bench.compare import ComparedRow, compare_reports
from emadeploy.bench.rows import MEASURED, Report, Row

MODE = {"device": "cpu", "threads": 2, "image_size": [288, 384], "tasks": ["depth"]}
MACHINE = {"cpu": "AMD EPYC", "architecture": "x86_64", "cores": 2, "flags": ["avx2"]}


def times(p50: float, width: float = 0.01) -> dict[str, Any]:
    """Return a spread whose interval reaches ``width`` (a share) to both sides."""
    ends = [p50 * (1 - width), p50 * (1 + width)]
    return {"p50": p50, "p90": None, "p99": None, "n": 64, "p50_ci": ends, "p90_ci": None, "p99_ci": None}


USUAL = Row(
    "ort",
    "onnxruntime-fp32",
    MEASURED,
    10.0,
    2,
    latency_ms=times(100.0),
    end_to_end_ms=times(110.0),
    peak_memory_mb=300.0,
    tasks={"semseg": {"miou": 60.0}, "depth": {"abs": 0.5, "rel": 0.1}},
    data="rooms val",
    mode=MODE,
)


def report(*rows: Row, **machine: Any) -> Report:
    return Report({**MACHINE, **machine}, {}, list(rows))


def compared(old: Row, new: Row, **machine: Any) -> ComparedRow:
    (row,) = compare_reports(report(old), report(new, **machine)).rows
    return row


def test_the_same_twice_is_within_noise() -> None:
    comparison = compare_reports(report(USUAL), report(USUAL))
    (row,) = comparison.rows
    assert (row.verdict, row.reason, comparison.fine) == ("within noise", "", True)
    assert {change.what: change.ratio for change in row.changes} == {
        "network, p50": 1,
        "frame to maps, p50": 1,
        "peak memory": 1,
        "size": 1,
        "semseg miou": 1,
        "depth abs": 1,
    }
    data = comparison.to_dict()
    assert (data["schema"], data["fine"]) == (1, True)
    assert data["rows"][0]["changes"][0]["interval"] == pytest.approx([0.99 / 1.01, 1.01 / 0.99])


@pytest.mark.parametrize(
    ("change", "verdict", "what"),
    [
        ({"latency_ms": times(120.0)}, "worse", "network, p50"),
        ({"latency_ms": times(80.0)}, "better", "network, p50"),
        ({"end_to_end_ms": times(130.0)}, "worse", "frame to maps, p50"),
        ({"latency_ms": times(103.0, 0.001)}, "within noise", ""),  # sure, and no more than two runs differ by
        ({"latency_ms": times(115.0, 0.2)}, "within noise", ""),  # much, and not sure
        ({"peak_memory_mb": 330.0}, "worse", "peak memory"),
        ({"peak_memory_mb": 306.0}, "within noise", ""),
        ({"size_mb": 9.0}, "better", "size"),
        ({"tasks": {"semseg": {"miou": 59.0}}}, "worse", "semseg miou"),
        ({"tasks": {"semseg": {"miou": 61.0}}}, "better", "semseg miou"),
        ({"tasks": {"depth": {"abs": 0.55, "rel": 0.1}}}, "worse", "depth abs"),
        ({"tasks": {"depth": {"abs": 0.5, "rel": 0.2}}}, "within noise", ""),  # not the primary metric
        # Faster and worse at its task is worse.
        ({"latency_ms": times(50.0), "tasks": {"semseg": {"miou": 40.0}}}, "worse", "semseg miou"),
    ],
)
def test_a_change_is_judged_against_its_noise(change: dict[str, Any], verdict: str, what: str) -> None:
    row = compared(USUAL, replace(USUAL, **change))
    assert row.verdict == verdict
    said = [change.what for change in row.changes if change.verdict == verdict and verdict != "within noise"]
    assert said == ([what] if what else [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threads": 1}, "threads 2 then, 1 now"),
        ({"target": "openvino-int8"}, "target onnxruntime-fp32 then, openvino-int8 now"),
        ({"estimate": True}, "estimate False then, True now"),
        ({"mode": {**MODE, "image_size": [192, 256]}}, "image size 288x384 against 192x256"),
        ({"mode": {**MODE, "device": "gpu"}}, "device cpu against gpu"),
    ],
)
def test_unlike_modes_are_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    row = compared(USUAL, replace(USUAL, **change))
    assert (row.verdict, row.reason, row.changes) == ("refused", f"measured differently: {reason}", ())
    assert not compare_reports(report(USUAL), report(replace(USUAL, **change))).fine


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"cpu": "Intel"}, "cpu AMD EPYC then, Intel now"),
        ({"cores": 8}, "cores 2 then, 8 now"),
        ({"flags": ["avx2", "amx_int8"]}, "flags avx2 then, avx2 amx_int8 now"),
        ({"jetson": "Orin Nano"}, "jetson none then, Orin Nano now"),
        ({"jetson": {"model": "Orin Nano"}}, "jetson none then, Orin Nano now"),
    ],
)
def test_another_machine_is_refused(machine: dict[str, Any], reason: str) -> None:
    row = compared(USUAL, USUAL, **machine)
    assert (row.verdict, row.reason) == ("refused", f"measured differently: {reason}")


def test_a_jetson_is_the_same_in_the_same_power_mode_whatever_its_clock_is_now() -> None:
    jetson = {"model": "Orin Nano", "l4t": "36.4.4", "power_mode": "MAXN", "locked": True, "gpu": {"now": 306.0}}

    def against(**change: Any) -> ComparedRow:
        reports = [report(USUAL, jetson=jetson), report(USUAL, jetson={**jetson, **change})]
        return compare_reports(*reports).rows[0]

    assert against(gpu={"now": 1020.0}).verdict == "within noise"
    assert against(power_mode="15W").reason == "measured differently: power mode MAXN then, 15W now"
    assert against(locked=False).reason == "measured differently: locked True then, False now"
    assert against(l4t="39.2.0").reason == "measured differently: l4t 36.4.4 then, 39.2.0 now"


def test_times_that_nobody_can_trust_are_not_judged() -> None:
    slow = replace(USUAL, latency_ms=times(500.0), unstable="the clock fell")
    row = compared(USUAL, slow)
    assert (row.verdict, row.reason) == ("not judged", "the newer times are unstable: the clock fell")
    assert compared(slow, USUAL).reason == "the older times are unstable: the clock fell"
    # What is no time is judged all the same.
    assert compared(USUAL, replace(slow, size_mb=20.0)).verdict == "worse"
    few = {**times(500.0), "p50_ci": None}
    row = compared(USUAL, replace(USUAL, latency_ms=few))
    assert (row.verdict, row.reason) == (
        "not judged",
        "too few calls for a confidence interval: measure with --percentile",
    )


def test_accuracy_on_other_data_is_not_judged() -> None:
    row = compared(USUAL, replace(USUAL, data="nyuv2 val"))
    assert (row.verdict, row.reason) == ("not judged", "accuracy on rooms val then, on nyuv2 val now")


def test_estimates_are_exact_and_say_what_they_are() -> None:
    old = replace(USUAL, estimate=True, latency_ms={"p50": 10.0}, end_to_end_ms=None)
    row = compared(old, replace(old, latency_ms={"p50": 12.0}))
    assert (row.verdict, row.estimate) == ("worse", True)
    assert row.changes[0].interval == (1.2, 1.2)
    assert compared(old, old, cpu="another").verdict == "within noise"


def test_rows_that_are_missing_new_or_failed() -> None:
    other, third = replace(USUAL, name="ov"), replace(USUAL, name="trt")
    broken = replace(USUAL, name="trt", status="failed: killed", latency_ms=None)

    def verdicts(old: Report, new: Report) -> dict[str, str]:
        return {row.name: row.verdict for row in compare_reports(old, new).rows}

    assert verdicts(report(USUAL, other), report(USUAL)) == {"ort": "within noise", "ov": "missing"}
    assert not compare_reports(report(USUAL, other), report(USUAL)).fine
    assert verdicts(report(USUAL), report(USUAL, other)) == {"ort": "within noise", "ov": "new"}
    assert compare_reports(report(USUAL), report(USUAL, other)).fine
    assert verdicts(report(third), report(broken)) == {"trt": "worse"}
    assert verdicts(report(broken), report(third)) == {"trt": "better"}
    assert verdicts(report(broken), report(broken)) == {"trt": "failed"}
    assert verdicts(report(USUAL), report(USUAL, broken)) == {"ort": "within noise", "trt": "failed"}
    empty = replace(USUAL, latency_ms=None, end_to_end_ms=None, peak_memory_mb=None, size_mb=None, tasks={})
    assert compared(empty, empty).verdict == "refused"
