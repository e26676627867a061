"""Facts about the machine, from files of machines that are not here."""

import pytest

from emadeploy.runtime import machine

ORIN = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64",
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes asimddp\nCPU part\t: 0xd42\n",
    "/proc/meminfo": "MemTotal:        7802344 kB\nMemFree: 1 kB",
}
XEON = {
    "/proc/cpuinfo": "model name\t: Intel(R) Xeon(R) 6975\nflags\t\t: avx2 avx512f avx512_vnni amx_int8 amx_tile\n",
    "/proc/meminfo": "MemTotal:       32000000 kB",
    **{f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}" for i in range(8)},
}


def pretend(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int = 8) -> None:
    monkeypatch.setattr(machine, "_text", files.get)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)


def test_a_jetson_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ORIN, cpus=6)
    facts = machine.describe_machine()
    assert facts["jetson"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["l4t"] == "36.4.4"
    assert facts["memory_mb"] == 7619
    assert facts["flags"] == ["asimd", "asimddp"]
    assert facts["cores"] == 6


def test_a_server_is_no_jetson_and_its_hyper_threads_are_no_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, XEON)
    facts = machine.describe_machine()
    assert "jetson" not in facts
    assert "l4t" not in facts
    assert facts["cpu"] == "Intel(R) Xeon(R) 6975"
    assert facts["cores"] == 4
    assert facts["flags"] == ["avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8"]


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
def test_the_quota_of_a_container_limits_the_cores(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    pretend(monkeypatch, {**XEON, "/sys/fs/cgroup/cpu.max": quota})
    assert machine.usable_cores() == cores


def test_other_device_trees_are_no_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"})
    assert machine.jetson_model() is None
    assert machine.memory_mb() is None


def test_this_machine() -> None:
    assert machine.usable_cores() >= 1
    assert machine.describe_machine()["architecture"]
