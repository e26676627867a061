"""The state of a machine, from a tree of files made for it, and from this machine's own."""

import os
from pathlib import Path

import pytest

from emadeploy.bench.conditions import conditions, others_cpus, trouble
from emadeploy.bench.modes import unlike

TICKS = os.sysconf("SC_CLK_TCK")
TWO = (0, 1)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def machine(root: Path, *, busy: int = 100, own: int = 10, uptime: float = 1000.0, throttled: int = 2) -> Path:
    ticks = busy * TICKS
    write(
        root,
        {
            "proc/loadavg": "1.25 0.5 0.4 2/300 4000\n",
            "proc/uptime": f"{uptime} 500.0\n",
            "proc/stat": f"cpu  9 9 9 9 9 9 9\ncpu0 {ticks} 0 0 77 5 0 0 0 0 0\ncpu7 99 99 99 99 99 99 99\n",
            f"proc/{os.getpid()}/stat": f"1 (a (b) c) S {' '.join(['0'] * 10)} {own * TICKS} 0 0 0\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3000000\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": f"{throttled}\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "46500\n",
            "sys/class/thermal/thermal_zone1/type": "off\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
            "sys/class/thermal/thermal_zone2/temp": "no number\n",
        },
    )
    return root


def test_what_the_files_say(tmp_path: Path) -> None:
    now = conditions(root=machine(tmp_path), affinity=TWO)
    assert (now.load_average, now.governor, now.mhz, now.max_mhz) == (1.25, "powersave", 2400, 3000)
    assert now.cpus == 2
    assert (now.throttled, now.busy_s, now.own_s, now.uptime_s) == (2, 100, 10, 1000)
    assert now.temperatures_c == {"x86_pkg_temp": 46.5}
    assert now.to_dict()["temperatures_c"] == {"x86_pkg_temp": 46.5}


def test_what_is_not_told_is_none(tmp_path: Path) -> None:
    now = conditions(root=tmp_path)
    facts = now.to_dict()
    assert facts.pop("temperatures_c") == {}
    assert facts.pop("cpus") > 0
    assert set(facts.values()) == {None}
    assert others_cpus(now, now) is None
    assert trouble(now, now) == []


def test_other_programs_and_heat_are_trouble(tmp_path: Path) -> None:
    before = conditions(root=machine(tmp_path / "before"), affinity=TWO)
    # In ten seconds of two CPUs: 15 of 20 are taken, 8 of them by what is measured.
    after = conditions(root=machine(tmp_path / "after", busy=115, own=18, uptime=1010, throttled=5), affinity=TWO)
    assert others_cpus(before, after) == pytest.approx(0.7)
    assert trouble(before, after) == [
        "heat has held the CPU back 3 times",
        "other programs took 0.7 of 2 CPUs",
    ]
    calm = conditions(root=machine(tmp_path / "calm", busy=108, own=18, uptime=1010), affinity=TWO)
    assert trouble(before, calm) == []


def test_this_machine_tells_something() -> None:
    before = conditions([os.getpid()])
    sum(range(10**6))
    after = conditions([os.getpid()])
    if before.busy_s is not None and before.own_s is not None:
        assert after.busy_s >= before.busy_s
        assert after.own_s >= before.own_s


def test_modes_that_differ_are_named() -> None:
    ours = {"device": "cpu", "threads": 2, "image_size": [288, 384], "tasks": ["depth"], "untrained": False}
    assert unlike(ours, {**ours, "image_size": (288, 384)}) is None
    assert unlike(ours, {**ours, "threads": 4}) == "threads 2 against 4"
    assert unlike({**ours, "untrained": True}, ours) == "random weights yes against no"
    assert (
        unlike({**ours, "device": "gpu:0", "threads": None}, ours) == "device gpu:0 against cpu, threads none against 2"
    )
    assert unlike({**ours, "tasks": ["depth", "semseg"]}, ours) == "tasks depth+semseg against depth"
    assert unlike({"power_mode": "MAXN"}, {}) == "power mode MAXN against none"
