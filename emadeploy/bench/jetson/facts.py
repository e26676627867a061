"""Which Jetson this is, what runs on it, and how it is set: model, L4T, JetPack, power mode, clocks."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from emadeploy.bench.jetson.clocks import Clock, cpu_clocks, gpu_clock
from emadeploy.bench.jetson.files import text_of
from emadeploy.contract.errors import first_line
from emadeploy.runtime.machine import jetson_model, l4t_version

#: Chip, as the device tree's 'compatible' has it -> CUDA compute capability.
COMPUTE_CAPABILITY = {"tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
#: L4T -> JetPack, by the longest prefix that fits, after NVIDIA's archive of JetPack. What is not here is not guessed.
_JETPACK = {
    "35.2": "5.1",
    "35.3": "5.1.1",
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4 or later",
    "36.3": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4": "6.1 or 6.2.x",
    "36.5": "6.2.x",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
_SECONDS = 10.0


@dataclass(frozen=True)
class Jetson:
    """A Jetson. ``None`` where it does not tell; ``notes`` say what was not told, and what makes times untrustworthy.

    - ``model``: 'NVIDIA Jetson Orin Nano Developer Kit'. ``chip``: 'tegra234'. ``compute_capability``: '8.7'.
    - ``l4t``: '36.4.4'. ``jetpack``: as far as L4T tells it.
    - ``power_mode``: 'MAXN_SUPER', ``power_mode_id``: as this model numbers it.
    - ``gpu``, ``cpus``: clocks. ``locked``: whether all of them are fixed, as `jetson_clocks` does.
    """

    model: str
    chip: str | None
    compute_capability: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    power_mode_id: int | None
    gpu: Clock | None
    cpus: tuple[Clock, ...]
    locked: bool | None
    notes: tuple[str, ...]


def read_jetson(root: Path = Path("/"), *, nvpmodel: str = "nvpmodel") -> Jetson | None:
    """Return what the Jetson under ``root`` tells of itself, ``None`` where this is none.

    ``nvpmodel`` is the command that knows the power mode; that it is not there is a note.
    """
    compatible = text_of(root / "proc/device-tree/compatible") or ""
    chip = next((name for name in re.findall(r"tegra\d+", compatible) if name in COMPUTE_CAPABILITY), None)
    model = jetson_model(root)
    if model is None and chip is None:
        return None
    notes = []
    l4t = l4t_version(root)
    jetpack = jetpack_of(l4t)
    if jetpack is None:
        notes.append(f"JetPack is unknown: L4T {l4t or 'is not told by etc/nv_tegra_release'}")
    mode, mode_id, trouble = _power_mode(nvpmodel)
    if trouble:
        notes.append(f"the power mode is unknown: {trouble}")
    gpu, cpus = gpu_clock(root), cpu_clocks(root)
    locked = all(clock.locked for clock in (gpu, *cpus)) if gpu is not None else None
    if locked is None:
        notes.append("the clock of the GPU cannot be read: sys/class/devfreq has none of a name that is known")
    elif not locked:
        notes.append(f"clocks are not locked ({_loose(gpu, cpus)}): times vary; `sudo jetson_clocks` locks them")
    return Jetson(
        model or f"a Jetson of {chip}",
        chip,
        COMPUTE_CAPABILITY.get(chip or ""),
        l4t,
        jetpack,
        mode,
        mode_id,
        gpu,
        cpus,
        locked,
        tuple(notes),
    )


def jetpack_of(l4t: str | None) -> str | None:
    """Return the JetPack of a version of L4T ('36.4.4' -> '6.1 or 6.2'); ``None`` for one that is not in the table."""
    parts = (l4t or "").split(".")
    for length in range(len(parts), 0, -1):
        if found := _JETPACK.get(".".join(parts[:length])):
            return found
    return None


def parse_power_mode(answer: str) -> tuple[str | None, int | None]:
    """Return name and number of the power mode from the answer of `nvpmodel -q`; ``None`` for what it does not say."""
    name = re.search(r"^NV Power Mode:[ \t]*(\S.*?)[ \t]*$", answer, re.MULTILINE)
    # The number stands in a line of its own, after warnings about other settings perhaps.
    number = re.search(r"^[ \t]*(\d{1,4})[ \t]*$", answer[name.end() :] if name else "", re.MULTILINE)
    return (name[1] if name else None), (int(number[1]) if number else None)


def _power_mode(command: str) -> tuple[str | None, int | None, str | None]:
    """Ask ``command``; return name, number, and what went wrong."""
    try:
        done = subprocess.run(
            [command, "-q"], capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        return None, None, f"{command} is not here; in a container, mount it from the host"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, None, first_line(error)
    name, number = parse_power_mode(done.stdout)
    if name is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        return None, None, f"{command} -q says {said[-1]!r}" if said else f"{command} -q says nothing"
    return name, number, None


def _loose(gpu: Clock | None, cpus: tuple[Clock, ...]) -> str:
    loose = [clock for clock in (gpu, *cpus) if clock is not None and not clock.locked]
    shown = [f"{clock.name} {clock.min_mhz:.0f} to {clock.max_mhz:.0f} MHz" for clock in loose[:2]]
    return ", ".join([*shown, f"{len(loose) - 2} more"] if len(loose) > 2 else shown)
