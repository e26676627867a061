"""Fake file systems of Jetsons: what the kernel shows on a Xavier NX, an Orin Nano, an AGX Orin and a Thor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Board:
    """What a board shows. Rails: label -> (mV, mA); a label 'NC' is a channel that is not connected."""

    model: str
    compatible: str
    l4t: str
    gpu: str
    max_mhz: int
    rails: tuple[dict[str, tuple[int, int] | None], ...]
    zones: dict[str, int] = field(default_factory=dict)


XAVIER_NX = Board(
    "NVIDIA Jetson Xavier NX Developer Kit",
    "nvidia,p3449-0000+p3668-0000\0nvidia,p3509-0000+p3668-0000\0nvidia,tegra194",
    "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023",
    "17000000.gv11b",
    1109,
    ({"VDD_IN": (4984, 560), "VDD_CPU_GPU_CV": (4984, 130), "VDD_SOC": (4984, 200)},),
    {"CPU-therm": 46500, "GPU-therm": 45000, "AUX-therm": -256000},
)
ORIN_NANO = Board(
    "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234",
    "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 2025",
    "17000000.gpu",
    1020,
    ({"VDD_IN": (5000, 3000), "VDD_CPU_GPU_CV": (5000, 1200), "VDD_SOC": (5000, 700)},),
    {"cpu-thermal": 58312, "gpu-thermal": 58625, "cv0-thermal": -256000, "tj-thermal": 58625},
)
AGX_ORIN = Board(
    "NVIDIA Jetson AGX Orin Developer Kit",
    "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234",
    "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Mon Jan  5 2026",
    "17000000.gpu",
    1300,
    (
        {"VDD_GPU_SOC": (19000, 271), "VDD_CPU_CV": (19000, 52), "VIN_SYS_5V0": (4960, 800)},
        {"NC": (19000, 0), "VDDQ_VDD2_1V8AO": (4960, 120)},
    ),
    {"cpu-thermal": 52968, "gpu-thermal": 48000},
)
THOR = Board(
    "NVIDIA Jetson AGX Thor Developer Kit",
    "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264",
    "# R38 (release), REVISION: 2.0, GCID: 42051034, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 2025",
    "gpu-gpc-0",
    1575,
    ({"VDD_GPU": (12000, 1500), "VDD_CPU_SOC_MSS": (12000, 900), "VIN_SYS_5V0": (5000, 500)}, {"VIN": (20000, 2100)}),
    {"cpu-thermal": 41000, "gpu-thermal": 42500},
)


def write(root: Path, path: str, value: object) -> Path:
    """Write a small file below ``root``; return its path."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")
    return file


def make_tree(root: Path, board: Board, *, locked: bool = False, cpus: int = 2) -> Path:
    """Write the files of ``board`` below ``root``, and return it."""
    root.mkdir(parents=True, exist_ok=True)
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(board.model.encode() + b"\0")
    (tree / "compatible").write_bytes(board.compatible.encode() + b"\0")
    write(root, "etc/nv_tegra_release", board.l4t)
    _clocks(root, board, locked, cpus)
    for index, rails in enumerate(board.rails):
        _monitor(root / f"sys/bus/i2c/drivers/ina3221/1-004{index}/hwmon/hwmon{index + 1}", rails)
    for index, (zone, temperature) in enumerate(board.zones.items()):
        folder = f"sys/devices/virtual/thermal/thermal_zone{index}"
        write(root, f"{folder}/type", zone)
        write(root, f"{folder}/temp", temperature)
    for index in (1, 2, 3):
        write(root, f"sys/class/hwmon/hwmon5/oc{index}_event_cnt", 7)
    for index, name in enumerate(("pwm-fan", "gpu-throttle-alert")):
        write(root, f"sys/class/thermal/cooling_device{index}/type", name)
        write(root, f"sys/class/thermal/cooling_device{index}/cur_state", 1 - index)
    return root


def fake_nvpmodel(folder: Path, answer: str, *, status: int = 0) -> str:
    """Write a command that answers as `nvpmodel -q` does, and return its path."""
    return script(folder / "nvpmodel", f'[ "$1" = -q ] || exit 9\ncat <<"END"\n{answer}\nEND\nexit {status}')


def script(path: Path, body: str) -> str:
    """Write a shell script; return its path."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def _clocks(root: Path, board: Board, locked: bool, cpus: int) -> None:
    folder = f"sys/class/devfreq/{board.gpu}"
    highest = board.max_mhz * 1_000_000
    write(root, f"{folder}/max_freq", highest)
    write(root, f"{folder}/min_freq", highest if locked else 306_000_000)
    write(root, f"{folder}/cur_freq", highest)
    # Other engines have clocks, too, and none of them is the GPU's.
    for name in ("15340000.vic", "gpu-nvd-0"):
        write(root, f"sys/class/devfreq/{name}/cur_freq", 1)
    for cpu in range(cpus):
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        write(root, f"{folder}/scaling_max_freq", 1_728_000)
        write(root, f"{folder}/scaling_min_freq", 1_728_000 if locked else 729_600)
        write(root, f"{folder}/scaling_cur_freq", 1_728_000)


def _monitor(folder: Path, rails: dict[str, tuple[int, int] | None]) -> None:
    for channel, (label, reading) in enumerate(rails.items(), 1):
        write(folder, f"in{channel}_label", label)
        if reading is not None:
            write(folder, f"in{channel}_input", reading[0])
            write(folder, f"curr{channel}_input", reading[1])
    # Shunts, and their sum: what the driver shows beside the channels.
    write(folder, "in4_label", "shunt")
    write(folder, "in4_input", 4)
    write(folder, "in7_label", "sum of shunt voltages")
    write(folder, "in7_input", 12)
