"""The clocks of GPU and CPUs, as the kernel has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from emadeploy.bench.jetson.files import number_of

#: Folders of sys/class/devfreq that are the GPU: 17000000.gv11b (Xavier), 17000000.ga10b and 17000000.gpu (Orin),
#: gpu-gpc-0 (Thor). The last, gpu-nvd-0, is Thor's video engines: theirs is no clock of the network.
_GPU = re.compile(r"(?:.*\.)?(?:gpu|gv11b|ga10b|gb10b)(?:-gpc-\d+)?")


@dataclass(frozen=True)
class Clock:
    """A clock now, and the range that the governor may choose from; MHz."""

    name: str
    mhz: float
    min_mhz: float
    max_mhz: float

    @property
    def locked(self) -> bool:
        """Whether the governor has no choice."""
        return self.min_mhz == self.max_mhz


def gpu_clock(root: Path) -> Clock | None:
    """Return the clock of the GPU of the machine under ``root``; ``None`` where it is not told."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU.fullmatch(folder.name):
            return _clock("GPU", folder, "", per_mhz=1e6)
    return None


def cpu_clocks(root: Path) -> tuple[Clock, ...]:
    """Return the clocks of the CPUs that are on, in order."""
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")
    ordered = sorted(folders, key=lambda folder: int(folder.parent.name.removeprefix("cpu")))
    clocks = (_clock(folder.parent.name, folder, "scaling_", per_mhz=1e3) for folder in ordered)
    return tuple(clock for clock in clocks if clock is not None)


def _clock(name: str, folder: Path, prefix: str, *, per_mhz: float) -> Clock | None:
    values = [number_of(folder / f"{prefix}{which}_freq") for which in ("cur", "min", "max")]
    known = [value / per_mhz for value in values if value is not None]
    return Clock(name, *known) if len(known) == 3 else None
