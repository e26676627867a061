"""One reading of a Jetson's sensors from files of the kernel: rails, temperatures, the GPU's clock, throttling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emadeploy.bench.jetson.clocks import gpu_clock
from emadeploy.bench.jetson.files import number_of, text_of

#: Channels of an INA3221; what a driver numbers beyond them are its shunts and their sum.
_CHANNELS = (1, 2, 3)
#: Rails that feed the whole module, the first that is there counts: Xavier NX, Orin Nano and NX; Thor.
#: AGX Orin and AGX Xavier have none, and their rails must not be added up: some feed others.
_MODULE = ("VDD_IN", "VIN")
#: A zone that is switched off reads -256 degrees.
OFFLINE_C = -200.0


@dataclass(frozen=True)
class Sample:
    """What was read at one time, ``seconds`` of `time.perf_counter`.

    - ``rails_w``: watt by rail. ``temperatures_c``: degrees Celsius by zone.
    - ``gpu_mhz``, ``gpu_max_mhz``: the GPU's clock, and the highest that it may have; ``None`` where not told.
    - ``events``: counters that only grow, such as 'oc1'. ``alerts``: what throttles just now.
    """

    seconds: float
    rails_w: Mapping[str, float] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    gpu_mhz: float | None = None
    gpu_max_mhz: float | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()


def module_rail(rails: Iterable[str]) -> str | None:
    """Return the rail that feeds the whole module; ``None`` where no single one does."""
    rails = set(rails)
    return next((name for name in _MODULE if name in rails), None)


class Sensors:
    """The sensors of the machine under ``root``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._rails = _find_rails(root)
        self._zones = _find_zones(root)
        self._counters = {
            path.name.removesuffix("_event_cnt"): path
            for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
        }
        self._alerts = {
            name: folder / "cur_state"
            for folder in sorted((root / "sys/class/thermal").glob("cooling_device*"))
            if (name := text_of(folder / "type")) and name.endswith("-alert")
        }

    @property
    def rails(self) -> tuple[str, ...]:
        """The rails whose power can be read."""
        return tuple(self._rails)

    def read(self, seconds: float) -> Sample:
        """Return a reading, said to be of the time ``seconds``; what cannot be read just now is not in it."""
        clock = gpu_clock(self._root)
        rails = {name: _watt(*paths) for name, paths in self._rails.items()}
        temperatures = {name: number_of(path) for name, path in self._zones.items()}
        events = {name: number_of(path) for name, path in self._counters.items()}
        return Sample(
            seconds,
            {name: watt for name, watt in rails.items() if watt is not None},
            {name: t / 1e3 for name, t in temperatures.items() if t is not None and t / 1e3 > OFFLINE_C},
            clock.mhz if clock else None,
            clock.max_mhz if clock else None,
            {name: count for name, count in events.items() if count is not None},
            tuple(name for name, path in self._alerts.items() if (number_of(path) or 0) > 0),
        )


def _find_rails(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the files of voltage (mV) and current (mA) by rail."""
    rails = {}
    for chip in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*-*/hwmon/hwmon*")):
        for channel in _CHANNELS:
            label = text_of(chip / f"in{channel}_label")
            paths = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            # NC is not connected; a channel that is switched off has no current to read.
            if label and label.upper() != "NC" and _watt(*paths) is not None:
                rails[label.upper()] = paths
    return rails


def _find_zones(root: Path) -> dict[str, Path]:
    zones = {}
    for folder in sorted((root / "sys/devices/virtual/thermal").glob("thermal_zone*")):
        if name := text_of(folder / "type"):
            # 'cpu-thermal', and 'CPU-therm' of JetPack 5, are 'cpu' to tegrastats.
            zones[name.lower().removesuffix("-thermal").removesuffix("-therm")] = folder / "temp"
    return zones


def _watt(voltage: Path, current: Path) -> float | None:
    millivolt, milliampere = number_of(voltage), number_of(current)
    return None if millivolt is None or milliampere is None else millivolt * milliampere / 1e6
