"""The lines of `tegrastats`, which differ from platform to platform and from release to release.

| release | what a line has |
|---|---|
| Xavier NX, JetPack 5 | ``GR3D_FREQ 0%@[114] ... CPU@46.5C ... VDD_IN 2763mW/2846mW`` (now/mean) |
| Orin Nano, L4T 36.4 | ``EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] ... gpu@58.625C ... VDD_IN 16321mW/11204mW`` |
| AGX Orin, L4T 39.2 | ``GR3D_FREQ 12%@[1300,1300] cpu@52.968C/52.968C VDD_GPU_SOC 5139mW/5139mW/5139mW`` |
| Thor | ``GR3D_FREQ`` and ``EMC_FREQ`` may be missing; ``VIN`` feeds the module |

A time may stand in front. Zones that are off read -256C, rails that are not connected are called NC: both are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from emadeploy.bench.jetson.sensors import OFFLINE_C, Sample

_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_TEMPERATURE = re.compile(rf"(?<!\S)([A-Za-z]\w*)@(-?{_NUMBER})C(?:/-?{_NUMBER}C)*(?!\S)")
_RAIL = re.compile(r"(?<!\S)([A-Za-z]\w*) (\d{1,9})mW(?:/\d{1,9}mW)*(?!\S)")
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (?:(\d{1,3})%)?(?:@\[?(\d{1,6})(?:,\d{1,6})*\]?)?(?!\S)", re.IGNORECASE)
_EMC = re.compile(r"(?<!\S)EMC_FREQ (?:(\d{1,3})%)?(?:@(\d{1,6}))?(?!\S)", re.IGNORECASE)
_RAM = re.compile(r"(?<!\S)RAM (\d{1,9})/(\d{1,9})MB(?!\S)", re.IGNORECASE)


@dataclass(frozen=True)
class Stats:
    """What a line says; ``None`` and empty where it is silent.

    - ``ram_mb``: (used, all). ``gpu_percent``, ``emc_percent``: load, 0 to 100. ``gpu_mhz``, ``emc_mhz``: clocks.
    - ``temperatures_c``: by zone, lower case. ``rails_w``: watt now by rail, upper case.
    """

    ram_mb: tuple[int, int] | None = None
    gpu_percent: int | None = None
    gpu_mhz: int | None = None
    emc_percent: int | None = None
    emc_mhz: int | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    rails_w: Mapping[str, float] = field(default_factory=dict)

    def sample(self, seconds: float) -> Sample:
        """Return it as a reading of the time ``seconds``."""
        mhz = None if self.gpu_mhz is None else float(self.gpu_mhz)
        return Sample(seconds, self.rails_w, self.temperatures_c, gpu_mhz=mhz)


def parse_line(line: str) -> Stats:
    """Return what a line of `tegrastats` says; of any other text what looks like it, perhaps nothing. Never raises."""
    ram, gpu, emc = _RAM.search(line), _GPU.search(line), _EMC.search(line)
    temperatures = {name.lower(): float(value) for name, value in _TEMPERATURE.findall(line)}
    rails = {name.upper(): int(value) / 1e3 for name, value in _RAIL.findall(line)}
    return Stats(
        (int(ram[1]), int(ram[2])) if ram else None,
        *_load(gpu),
        *_load(emc),
        {name: value for name, value in temperatures.items() if value > OFFLINE_C},
        {name: watt for name, watt in rails.items() if name != "NC"},
    )


def _load(match: re.Match[str] | None) -> tuple[int | None, int | None]:
    if match is None:
        return None, None
    percent, mhz = match.groups()
    return (int(percent) if percent else None), (int(mhz) if mhz else None)
