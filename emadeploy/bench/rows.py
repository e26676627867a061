"""The record of a measurement: one row per engine, as `bench --json` and `demo --json` write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emadeploy.contract.plain import to_plain

SCHEMA = 1
MEASURED = "ok"

#: Seconds in milliseconds of one call, by stage, and 'total': the whole call as its caller sees it.
Timings = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """What was measured of one engine. Milliseconds, MB of 10^6 bytes; ``None`` where it could not be measured.

    - ``name``: the artifact's folder, or what the row is; ``target``: as the manifest has it, or 'torch-eager', ...
    - ``status``: 'ok', or what happened in place of a measurement.
    - ``latency_ms``: the engine alone, ``end_to_end_ms``: ``perception(frame)``; each as `stats.spread` has it.
    - ``stages_ms``: median per stage of the call. ``samples_ms``: 'inference' and 'total' of every call.
    - ``fps``: calls per second, one after the other; ``stream_fps``: frames per second of ``perception.stream()``.
    - ``peak_memory_mb``: of a process that did nothing else; ``baseline_memory_mb``: of that process before it loaded
      the artifact, with numpy and the engine's library imported; ``device_memory_mb``: of a GPU.
    - ``cold_start_s``: from the start of the process to its first answer; ``load_s``: of it, from the artifact on.
    - ``speedup``, ``speedup_end_to_end``: how many times faster than the row ``against``, the median over rounds in
      which both ran one after the other; ``*_ci``: [low, high] at 95 % confidence. ``incomparable``: why there is none.
    - ``unstable``: why the times are not to be trusted; ``None`` where nothing speaks against them.
    - ``energy_j``: of one frame, where the device tells it. ``power``: what it was taken from.
    - ``mode``: what two rows must share to be compared: `bench.modes`. ``warm_up``: {'calls', 'seconds', 'steady'}.
    - ``conditions``: {'before', 'after'}, temperatures, clocks and load, as `bench.conditions` has them.
    - ``estimate``: true where nothing was measured. ``artifact``: its folder; ``digest``: of the engine's file.
    - ``precision``: obtained, by branch. ``untrained``: random weights. ``notes``: what a reader must know.
    - ``tasks``: metrics by task, as `eval --json` has them; ``data``: what they were measured on; ``units``: of tasks
      that have one, 'metre' say.
    - ``layers``: times by branch and by layer, as `bench.layers` has them; ``None`` where nobody asked.
    """

    name: str
    target: str
    status: str
    size_mb: float | None
    threads: int | None
    latency_ms: Mapping[str, Any] | None = None
    end_to_end_ms: Mapping[str, Any] | None = None
    stages_ms: Mapping[str, float] | None = None
    fps: float | None = None
    stream_fps: float | None = None
    peak_memory_mb: float | None = None
    baseline_memory_mb: float | None = None
    device_memory_mb: float | None = None
    cold_start_s: float | None = None
    load_s: float | None = None
    against: str | None = None
    speedup: float | None = None
    speedup_end_to_end: float | None = None
    speedup_ci: Sequence[float] | None = None
    speedup_end_to_end_ci: Sequence[float] | None = None
    incomparable: str | None = None
    unstable: str | None = None
    energy_j: float | None = None
    power: Mapping[str, Any] | None = None
    estimate: bool = False
    mode: Mapping[str, Any] = field(default_factory=dict)
    warm_up: Mapping[str, Any] | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    artifact: str | None = None
    digest: str | None = None
    precision: Mapping[str, str] = field(default_factory=dict)
    untrained: bool = False
    notes: Sequence[str] = ()
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    data: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    samples_ms: Mapping[str, Sequence[float]] | None = None
    layers: Mapping[str, Any] | None = None

    @property
    def measured(self) -> bool:
        """Whether there are numbers in it."""
        return self.status == MEASURED

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return to_plain(self)


@dataclass(frozen=True)
class Report:
    """A run of the bench: the machine, what was asked for, and the rows in order."""

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def failed(self) -> list[Row]:
        """The rows without numbers."""
        return [row for row in self.rows if not row.measured]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json: {'schema', 'machine', 'settings', 'rows'}."""
        return {"schema": SCHEMA, **to_plain(self)}
