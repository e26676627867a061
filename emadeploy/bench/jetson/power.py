"""From readings to power and energy, temperatures and throttling of the time that was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emadeploy.bench.jetson.sensors import Sample, module_rail
from emadeploy.contract.plain import to_plain

#: From ... to ..., in seconds of `time.perf_counter`.
Span = tuple[float, float]
#: Readings that a span must hold for its energy to be told: fewer, and what was between them is a guess.
LEAST_READINGS = 5
#: A clock this far below its highest is below it; readings differ in the last digits.
_FULL = 0.98


@dataclass(frozen=True)
class PowerRecord:
    """What a Jetson drew, and how warm it was, while frames ran.

    - ``energy_j``: joule of one frame, the whole module; ``power_w``: mean. ``None`` where no rail feeds the whole
      module, or too few readings fell into the time. Idle power is in them, not taken off.
    - ``rail``: what they were taken from. ``rails_w``: mean watt of each rail apart, not to be added up.
    - ``idle_w``: by rail, before anything ran; empty where it was not measured.
    - ``temperature_c``: {'start', 'end', 'highest'} by zone. ``readings``: how many there were.
    - ``throttling``: what slowed the device, in words. ``notes``: what is not told, and why.
    """

    energy_j: float | None = None
    power_w: float | None = None
    rail: str | None = None
    rails_w: Mapping[str, float] = field(default_factory=dict)
    idle_w: Mapping[str, float] = field(default_factory=dict)
    temperature_c: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    readings: int = 0
    throttling: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return to_plain(self)


def energy(samples: Sequence[Sample], span: Span, rail: str) -> float | None:
    """Return the joule that ``rail`` delivered in ``span``: trapezia between readings, straight lines at its ends.

    ``None`` where fewer than LEAST_READINGS fell into it: nothing is made up between readings far apart.
    """
    start, end = span
    times = np.array([sample.seconds for sample in samples if rail in sample.rails_w])
    watts = np.array([sample.rails_w[rail] for sample in samples if rail in sample.rails_w])
    inside = (times >= start) & (times <= end)
    if inside.sum() < LEAST_READINGS:
        return None
    edges = np.interp([start, end], times, watts)
    seconds = np.concatenate([[start], times[inside], [end]])
    power = np.concatenate([edges[:1], watts[inside], edges[1:]])
    return float(np.sum(np.diff(seconds) * (power[:-1] + power[1:]) / 2))


def power_record(
    samples: Sequence[Sample], spans: Sequence[Span], frames: int, *, idle: Sequence[Sample] = ()
) -> PowerRecord:
    """Return the record of ``frames`` that ran within ``spans``, from readings in order of time.

    ``idle``: readings from before, when nothing ran.
    """
    parts = [[sample for sample in samples if start <= sample.seconds <= end] for start, end in spans]
    inside = [sample for part in parts for sample in part]
    if not inside:
        return PowerRecord(idle_w=_means(idle), notes=("no reading of power fell into the time that was measured",))
    rails = _means(inside)
    rail = module_rail(rails)
    joules = [energy(samples, span, rail) for span in spans] if rail else []
    known = [joule for joule in joules if joule is not None]
    notes = []
    if not rails:
        notes.append("no rail of the power monitor could be read: no energy")
    elif rail is None:
        notes.append(f"no rail feeds the whole module: {', '.join(rails)} are told apart, and no energy of a frame")
    elif len(known) < len(joules):
        few = f"fewer than {LEAST_READINGS} readings in {len(joules) - len(known)} of {len(joules)} stretches of time"
        notes.append(f"{few}: no energy; let each run for longer")
    whole = bool(known) and len(known) == len(joules)
    return PowerRecord(
        energy_j=sum(known) / frames if whole and frames else None,
        power_w=sum(known) / sum(end - start for start, end in spans) if whole else None,
        rail=rail,
        rails_w=rails,
        idle_w=_means(idle),
        temperature_c=_temperatures(inside),
        readings=len(inside),
        throttling=tuple(throttling([part for part in parts if part])),
        notes=tuple(notes),
    )


def throttling(parts: Sequence[Sequence[Sample]]) -> list[str]:
    """Return what slowed the device in ``parts``, the readings of stretches of time: over-current, heat, a low clock.

    What befell it between two stretches, when others ran, does not count.
    """
    samples = [sample for part in parts for sample in part]
    events = Counter[str]()
    for part in parts:
        first, last = part[0].events, part[-1].events
        events.update({name: last[name] - first[name] for name in first.keys() & last.keys()})
    found = [
        f"{count} over-current events ({name}): a better power supply, or a lower power mode"
        for name, count in sorted(events.items())
        if count > 0
    ]
    for alert in sorted({alert for sample in samples for alert in sample.alerts}):
        share = sum(alert in sample.alerts for sample in samples) / len(samples)
        found.append(f"{alert} in {100 * share:.0f} % of the readings: too warm; a fan, or a lower power mode")
    clocks = [(s.gpu_mhz, s.gpu_max_mhz) for s in samples if s.gpu_mhz is not None and s.gpu_max_mhz]
    slow = [mhz for mhz, highest in clocks if mhz < _FULL * highest]
    if slow:
        share, highest = 100 * len(slow) / len(clocks), max(highest for _, highest in clocks)
        found.append(f"the GPU ran below {highest:.0f} MHz in {share:.0f} % of the readings, at {min(slow):.0f} least")
    return found


def _means(samples: Sequence[Sample]) -> dict[str, float]:
    rails = {name for sample in samples for name in sample.rails_w}
    return {
        name: float(np.mean([sample.rails_w[name] for sample in samples if name in sample.rails_w]))
        for name in sorted(rails)
    }


def _temperatures(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    zones = sorted({zone for sample in samples for zone in sample.temperatures_c})
    highest = {zone: max(sample.temperatures_c.get(zone, -np.inf) for sample in samples) for zone in zones}
    return {
        "start": dict(samples[0].temperatures_c),
        "end": dict(samples[-1].temperatures_c),
        "highest": {zone: float(value) for zone, value in highest.items()},
    }
