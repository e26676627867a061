"""The state that a machine is in while it is measured: clocks, temperatures, load; from /proc and /sys.

What this machine does not tell is ``None``, never guessed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: CPUs that other programs may take, as a share of all, before times are not to be trusted.
_OTHERS = 0.10
#: What a sensor that is off reports, and what no chip survives.
_COLDEST, _HOTTEST = -100.0, 250.0


@dataclass(frozen=True)
class Conditions:
    """The machine at one moment.

    - ``load_average``: of the last minute. ``governor``: of the CPU's clocks, 'performance' where they are held up.
    - ``mhz``: the fastest core's clock now; ``max_mhz``: what it may reach.
    - ``temperatures_c``: degrees Celsius by zone. ``throttled``: how often heat has held the CPU back so far.
    - ``cpus``: how many this process may run on. ``busy_s``: seconds of them that all programs have taken so far;
      ``own_s``: those of this process, of its children that have ended, and of ``processes``.
    """

    load_average: float | None
    governor: str | None
    mhz: float | None
    max_mhz: float | None
    throttled: int | None
    cpus: int
    busy_s: float | None
    own_s: float | None
    uptime_s: float | None
    temperatures_c: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return asdict(self)


def conditions(
    processes: Collection[int] = (), root: Path = Path("/"), affinity: Collection[int] | None = None
) -> Conditions:
    """Return the state of the machine now; ``processes`` are those that are measured.

    ``root`` and ``affinity``, the CPUs that this process may run on, are for tests.
    """
    if affinity is None:
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cpus = root / "sys/devices/system/cpu"
    governors = {text for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor") if (text := _text(path))}
    load, uptime = ((_text(root / "proc" / name) or "").split() for name in ("loadavg", "uptime"))
    return Conditions(
        load_average=_number(load[0] if load else None),
        governor="/".join(sorted(governors)) or None,
        mhz=_largest(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"), 1e-3),
        max_mhz=_largest(cpus.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"), 1e-3),
        throttled=_throttled(cpus),
        cpus=len(affinity),
        busy_s=_busy(root / "proc/stat", affinity),
        own_s=_own(root / "proc", {os.getpid(), *processes}),
        uptime_s=_number(uptime[0] if uptime else None),
        temperatures_c=_temperatures(root / "sys/class/thermal"),
    )


def trouble(before: Conditions, after: Conditions) -> list[str]:
    """Return what befell the machine between two moments that makes its times doubtful, in words."""
    found = []
    if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
        found.append(f"heat has held the CPU back {after.throttled - before.throttled} times")
    others = others_cpus(before, after)
    if others is not None and others > _OTHERS * after.cpus:
        found.append(f"other programs took {others:.1f} of {after.cpus} CPUs")
    return found


def others_cpus(before: Conditions, after: Conditions) -> float | None:
    """Return how many CPUs other programs took between two moments, on average; ``None`` where it is not told."""
    values = [(c.busy_s, c.own_s, c.uptime_s) for c in (before, after)]
    if any(value is None for moment in values for value in moment):
        return None
    busy, own, seconds = (late - early for early, late in zip(*values, strict=True))
    return max(0.0, (busy - own) / seconds) if seconds > 0 else None


def _busy(stat: Path, affinity: Collection[int]) -> float | None:
    # "cpu0 user nice system idle iowait irq softirq steal guest guest_nice"; guests are in user and nice already.
    wanted, total = {f"cpu{cpu}" for cpu in affinity}, None
    for line in (_text(stat) or "").splitlines():
        name, *ticks = line.split()
        if name in wanted and len(ticks) >= 7:
            total = (total or 0.0) + sum(int(ticks[index]) for index in (0, 1, 2, 5, 6)) / _ticks()
    return total


def _own(proc: Path, processes: Collection[int]) -> float | None:
    total = 0.0
    for process in processes:
        # The name, in brackets, may hold anything; after it come fields 3 and on. Of them 14 to 17 are the time of the
        # process, and of its children that have ended: one that is killed must not become another program.
        _, bracket, rest = (_text(proc / str(process) / "stat") or "").rpartition(")")
        if bracket:
            fields = rest.split()
            total += sum(int(ticks) for ticks in fields[11:15]) / _ticks()
    return total or None


def _ticks() -> float:
    return float(os.sysconf("SC_CLK_TCK"))


def _throttled(cpus: Path) -> int | None:
    counts = [_number(_text(path)) for path in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    told = [int(count) for count in counts if count is not None]
    return sum(told) if told else None


def _temperatures(thermal: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        celsius = _number(_text(zone / "temp"))
        if celsius is not None and _COLDEST < celsius / 1e3 < _HOTTEST:
            found[_text(zone / "type") or zone.name] = celsius / 1e3
    return found


def _largest(paths: Any, unit: float) -> float | None:
    numbers: Sequence[float] = [number * unit for path in paths if (number := _number(_text(path))) is not None]
    return max(numbers, default=None)


def _number(text: str | None) -> float | None:
    with suppress(ValueError):
        return None if text is None else float(text)
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:  # not there, or a sensor that is off
        return None
