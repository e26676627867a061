"""Facts about the machine that this runs on, read from the system; what cannot be read is left out, never guessed."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: CPU flags that decide how fast low precision runs (x86 and Arm names).
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def sums_bytes(flags: Collection[str] | None = None, architecture: str | None = None) -> bool:
    """Whether the CPU (default: this one) adds products of bytes in 32 bits; x86 without VNNI saturates at 16."""
    x86 = (architecture or platform.machine()) in ("x86_64", "AMD64", "i686")
    return not x86 or bool(_VNNI & set(cpu_flags() if flags is None else flags))


def usable_cores() -> int:
    """Return how many physical cores this process may use: its affinity, without hyper-threads, within its quota."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    # Two hyper-threads of one core share its multipliers: a second thread there makes convolutions slower, not faster.
    cores = len({_text(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or cpu for cpu in cpus})
    quota = _cgroup_cpus()
    return max(1, min(cores, quota) if quota else cores)


def describe_machine() -> dict[str, Any]:
    """Return 'cpu', 'architecture', 'cores', 'flags', 'memory_mb', 'system', and on a Jetson 'jetson' and 'l4t'."""
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "flags": cpu_flags(),
        "memory_mb": memory_mb(),
        "system": platform.platform(),
        "jetson": jetson_model(),
        "l4t": l4t_version(),
    }
    return {key: value for key, value in facts.items() if value is not None}


def cpu_model() -> str | None:
    """Return the name of the CPU, such as 'AMD EPYC'."""
    return _cpuinfo("model name") or _text("/proc/device-tree/compatible") or platform.processor() or None


def cpu_flags() -> list[str]:
    """Return those CPU flags that matter to low precision, such as 'avx512_vnni', 'amx_int8', 'i8mm'."""
    present = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return [flag for flag in _FLAGS if flag in present]


def memory_mb() -> int | None:
    """Return the machine's main memory in MiB."""
    for line in (_text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def jetson_model(root: Path = Path("/")) -> str | None:
    """Return the model of the NVIDIA Jetson, such as 'NVIDIA Jetson Orin Nano Developer Kit'; ``None`` elsewhere.

    ``root`` is the folder that holds ``proc``, here and below.
    """
    model = _text(str(root / "proc/device-tree/model"))
    return model if model and ("jetson" in model.lower() or "nvidia" in model.lower()) else None


def l4t_version(root: Path = Path("/")) -> str | None:
    """Return the version of Linux for Tegra, such as '36.4.4'; ``None`` where this is no Jetson."""
    # "# R36 (release), REVISION: 4.4, GCID: ..."
    parts = (_text(str(root / "etc/nv_tegra_release")) or "").replace(",", " ").split()
    if len(parts) > 4 and parts[1].startswith("R") and parts[3] == "REVISION:":
        return f"{parts[1][1:]}.{parts[4]}"
    return None


def _cgroup_cpus() -> int | None:
    """CPUs that the container's quota amounts to, rounded up; ``None`` without a quota."""
    quota, _, period = (_text("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return None
    return -(-int(quota) // int(period))


def _cpuinfo(key: str) -> str | None:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _text(path: str) -> str | None:
    try:
        # Device tree strings end in NUL; lists of them are separated by it.
        return Path(path).read_text(errors="replace").strip("\0\n").replace("\0", " ") or None
    except OSError:
        return None


def is_alive(process: int) -> bool:
    """Return whether a process of this number runs; where the system does not tell, it does, as another user's."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
