"""Two reports of a bench, row by row: what got better, what got worse, and what nobody can tell.

A change counts where it is larger than noise. Times: the interval of the ratio, made of the confidence intervals of
both, must leave out 1, and the ratio must differ from 1 by more than two runs of the same engine do (DRIFT). What is
no time has a tolerance of its own. Rows that were not measured in the same way are refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emadeploy.bench.modes import unlike
from emadeploy.bench.rows import Report, Row
from emadeploy.contract.plain import to_plain
from emadeploy.evaluate.metrics import metrics_in

SCHEMA = 1
BETTER, WORSE, NOISE, UNJUDGED = "better", "worse", "within noise", "not judged"
REFUSED, MISSING, NEW, FAILED = "refused", "missing", "new", "failed"
#: Verdicts of a row that leave nothing to do.
FINE = frozenset({BETTER, NOISE, NEW})

#: Two runs of one engine, minutes apart on a machine that others use, differ by so much: shares of the older value.
DRIFT = 0.05
_MEMORY_TOLERANCE = 0.03
_SIZE_TOLERANCE = 0.005
_ACCURACY_TOLERANCE = 0.005
#: Facts of a machine that say whether it is the same.
_MACHINE = ("cpu", "architecture", "cores", "flags", "governor", "jetson", "l4t", "gpu")
_JETSON = ("l4t", "power_mode", "locked")
_TIMES = (("network", "latency_ms"), ("frame to maps", "end_to_end_ms"))
_AMOUNTS = (
    ("peak memory", "peak_memory_mb", "MB", _MEMORY_TOLERANCE),
    ("device memory", "device_memory_mb", "MB", _MEMORY_TOLERANCE),
    ("size", "size_mb", "MB", _SIZE_TOLERANCE),
    ("energy per frame", "energy_j", "J", DRIFT),
)


@dataclass(frozen=True)
class Change:
    """One number of a row, then and now. ``ratio`` is new / old, ``interval`` where it lies with 95 % confidence.

    ``reason`` says why it is not judged.
    """

    what: str
    unit: str
    old: float
    new: float
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class ComparedRow:
    """A row of both reports, or of one. ``verdict``: worse where any change is; ``reason``: why there is none."""

    name: str
    verdict: str
    reason: str = ""
    changes: tuple[Change, ...] = ()
    estimate: bool = False


@dataclass(frozen=True)
class Comparison:
    """All rows, in the order of the older report; then those that are new."""

    rows: tuple[ComparedRow, ...]

    @property
    def fine(self) -> bool:
        """Whether every row was compared, and none got worse."""
        return all(row.verdict in FINE for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return {"schema": SCHEMA, "fine": self.fine, **to_plain(self)}


def compare_reports(old: Report, new: Report) -> Comparison:
    """Return what changed from ``old`` to ``new``; rows belong together by their name."""
    machines = [_identity(report.machine) for report in (old, new)]
    machine = _differences(machines[0], machines[1], tuple({**machines[0], **machines[1]}))
    after = {row.name: row for row in new.rows}
    rows = [_compared(row, after.get(row.name), machine) for row in old.rows]
    known = {row.name for row in old.rows}
    rows += [_added(row) for row in new.rows if row.name not in known]
    return Comparison(tuple(rows))


def _added(row: Row) -> ComparedRow:
    if not row.measured:
        return ComparedRow(row.name, FAILED, f"not in the older report; now: {row.status}", estimate=row.estimate)
    return ComparedRow(row.name, NEW, "not in the older report", estimate=row.estimate)


def _compared(old: Row, new: Row | None, machine: str) -> ComparedRow:
    if new is None:
        return ComparedRow(old.name, MISSING, "the newer report has no such row", estimate=old.estimate)
    if not new.measured:
        verdict = WORSE if old.measured else FAILED
        before = "" if old.measured else ", as before"
        return ComparedRow(old.name, verdict, f"{new.status}{before}", estimate=new.estimate)
    if not old.measured:
        return ComparedRow(old.name, BETTER, f"has numbers now; before: {old.status}", estimate=new.estimate)
    # Wherever the sums were done, an estimate is of the device in its mode.
    machine = "" if old.estimate and new.estimate else machine
    why = "; ".join(filter(None, (machine, _unlike(old, new))))
    if why:
        return ComparedRow(old.name, REFUSED, f"measured differently: {why}", estimate=new.estimate)
    changes = (*_times(old, new), *_amounts(old, new), *_accuracy(old, new))
    if not changes:
        return ComparedRow(old.name, REFUSED, "the two have no number in common", estimate=new.estimate)
    found = {change.verdict for change in changes}
    verdict = next(verdict for verdict in (WORSE, UNJUDGED, BETTER, NOISE) if verdict in found)
    reasons = dict.fromkeys(change.reason for change in changes if change.reason)
    return ComparedRow(old.name, verdict, "; ".join(reasons), changes, estimate=new.estimate)


def _unlike(old: Row, new: Row) -> str:
    facts = [{"target": row.target, "threads": row.threads, "estimate": row.estimate} for row in (old, new)]
    parts = (_differences(facts[0], facts[1], tuple(facts[0])), unlike(old.mode, new.mode))
    return "; ".join(filter(None, parts))


def _identity(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that say which machine it is, and in which state, without clocks and heat of the moment."""
    facts = {key: machine.get(key) for key in _MACHINE}
    jetson = machine.get("jetson")
    if isinstance(jetson, Mapping):
        facts |= {"jetson": jetson.get("model"), **{key.replace("_", " "): jetson.get(key) for key in _JETSON}}
    return facts


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return "; ".join(
        f"{key} {_said(old.get(key))} then, {_said(new.get(key))} now" for key in keys if old.get(key) != new.get(key)
    )


def _said(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _times(old: Row, new: Row) -> Iterator[Change]:
    for what, field in _TIMES:
        before, after = getattr(old, field), getattr(new, field)
        for key in ("p50", "p90", "p99"):
            if before and after and before.get(key) and after.get(key):
                yield _time(f"{what}, {key}", before, after, key, old, new)


def _time(what: str, before: Mapping[str, Any], after: Mapping[str, Any], key: str, old: Row, new: Row) -> Change:
    ratio = after[key] / before[key]
    interval, reason = _interval(before, after, key, exact=new.estimate), ""
    if new.unstable or old.unstable:
        which = "newer" if new.unstable else "older"
        reason = f"the {which} times are unstable: {new.unstable or old.unstable}"
    elif interval is None:
        reason = "too few calls for a confidence interval: measure with --percentile"
    if interval is None or reason:
        return Change(what, "ms", before[key], after[key], ratio, interval, UNJUDGED, reason)
    beyond = not interval[0] <= 1 <= interval[1] and abs(ratio - 1) > DRIFT
    verdict = NOISE if not beyond else WORSE if ratio > 1 else BETTER
    return Change(what, "ms", before[key], after[key], ratio, interval, verdict)


def _interval(
    before: Mapping[str, Any], after: Mapping[str, Any], key: str, *, exact: bool
) -> tuple[float, float] | None:
    """Return between what the ratio lies: the ends of both intervals at their worst, which is no less than 95 %."""
    ratio = after[key] / before[key]
    if exact:
        return ratio, ratio
    then, now = before.get(f"{key}_ci"), after.get(f"{key}_ci")
    if not then or not now or min(*then, *now) <= 0:
        return None
    return now[0] / then[1], now[1] / then[0]


def _amounts(old: Row, new: Row) -> Iterator[Change]:
    for what, field, unit, tolerance in _AMOUNTS:
        before, after = getattr(old, field), getattr(new, field)
        if before is not None and after is not None:
            yield _judged(what, unit, before, after, tolerance, higher_is_better=False)


def _accuracy(old: Row, new: Row) -> Iterator[Change]:
    for task in old.tasks:
        if task not in new.tasks:
            continue
        metric = next(iter(metrics_in(task, old.tasks[task], new.tasks[task])), None)
        if metric is None:
            continue
        before, after = old.tasks[task][metric.name], new.tasks[task][metric.name]
        unit = "" if metric.unit == "unit" else metric.unit
        what = f"{task} {metric.name}"
        if old.data != new.data:
            reason = f"accuracy on {_said(old.data)} then, on {_said(new.data)} now"
            yield Change(what, unit, before, after, None, None, UNJUDGED, reason)
        else:
            better = metric.higher_is_better
            yield _judged(what, unit, before, after, _ACCURACY_TOLERANCE, higher_is_better=better)


def _judged(what: str, unit: str, before: float, after: float, tolerance: float, *, higher_is_better: bool) -> Change:
    beyond = abs(after - before) > tolerance * abs(before)
    verdict = NOISE if not beyond else BETTER if (after > before) is higher_is_better else WORSE
    return Change(what, unit, before, after, after / before if before else None, None, verdict)
