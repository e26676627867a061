"""From what a process answered to its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emadeploy.bench.conditions import Conditions, trouble
from emadeploy.bench.jetson.power import PowerRecord
from emadeploy.bench.rows import MEASURED, Row, Timings
from emadeploy.bench.stats import medians, spread
from emadeploy.bench.steady import WarmUp, unstable


@dataclass(frozen=True)
class Rounds:
    """The timed calls of an engine, by round, and the machine before the first and after the last."""

    calls: Sequence[Sequence[Timings]]
    warmed: WarmUp | None
    before: Conditions
    after: Conditions

    def of(self, stage: str) -> list[float]:
        """Return the milliseconds of every call in order."""
        return [call[stage] for calls in self.calls for call in calls]


def result(
    row: Row,
    rounds: Rounds,
    *,
    facts: Mapping[str, Any],
    memory: Mapping[str, Any],
    cold_start_s: float | None,
    stream_fps: float | None,
    power: PowerRecord | None = None,
) -> Row:
    """Return ``row`` with what was measured; ``facts`` and ``memory`` are answers of its process."""
    befell = trouble(rounds.before, rounds.after)
    if power is not None:
        befell += power.throttling
        row = replace(row, energy_j=power.energy_j, power=power.to_dict(), notes=(*row.notes, *power.notes))
    inference, total = rounds.of("inference"), rounds.of("total")
    calls = [call for each in rounds.calls for call in each]
    end_to_end = spread(total)
    engine = dict(facts.get("ready", {}))
    # What it runs on is what it says, not what was asked for; threads are those of a CPU.
    device = str(engine.get("device", "cpu"))
    threads = row.threads if device.split(":")[0].split(".")[0] == "cpu" else None
    warmed = rounds.warmed
    return replace(
        row,
        status=MEASURED,
        latency_ms=spread(inference),
        end_to_end_ms=end_to_end,
        stages_ms=_stages(calls, memory.get("copies_ms") or {}),
        fps=1e3 / end_to_end["p50"],
        stream_fps=stream_fps,
        peak_memory_mb=memory.get("peak_memory_mb"),
        baseline_memory_mb=facts.get("baseline_memory_mb"),
        device_memory_mb=memory.get("device_memory_mb"),
        cold_start_s=cold_start_s,
        load_s=facts.get("load_s"),
        unstable=unstable(total, warmed, befell),
        mode={**row.mode, "device": device, "threads": threads},
        warm_up=None if warmed is None else warmed.to_dict(),
        conditions={"before": rounds.before.to_dict(), "after": rounds.after.to_dict()},
        engine=engine,
        samples_ms={"inference": [round(ms, 4) for ms in inference], "total": [round(ms, 4) for ms in total]},
    )


def _stages(calls: Sequence[Timings], copies_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the median of each stage in order; ``copies_ms``, 'copy_in' and 'copy_out', are taken out of inference."""
    stages = medians([{stage: ms for stage, ms in call.items() if stage != "total"} for call in calls])
    if not copies_ms:
        return stages
    found: dict[str, float] = {}
    for stage, ms in stages.items():
        if stage != "inference":
            found[stage] = ms
            continue
        found["copy_in"] = copies_ms["copy_in"]
        found[stage] = max(0.0, ms - sum(copies_ms.values()))
        found["copy_out"] = copies_ms["copy_out"]
    return found
