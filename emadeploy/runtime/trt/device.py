"""The NVIDIA GPU of this machine: what it is and what drives it, or which part of it is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.machine import jetson_model, l4t_version
from emadeploy.runtime.trt.cuda_driver import CudaError, Driver, load_driver

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_NO_GPU = ("NO_DEVICE", "no CUDA-capable device", "no device")
_OLD_DRIVER = (
    "SYSTEM_DRIVER_MISMATCH",
    "COMPAT_NOT_SUPPORTED",
    "STUB_LIBRARY",
    "unsupported display driver",
    "stub library",
)
_CPU_TARGETS = "export for a target that runs on the CPU: openvino-int8, onnxruntime-int8"


@dataclass(frozen=True)
class Device:
    """A GPU.

    - ``name``: as NVIDIA's driver has it, on a Jetson that of the board, which says how much memory and power it has.
    - ``compute_capability``: '8.7'.
    - ``driver``: version of the driver, '580.159.04'; on a Jetson that of Linux for Tegra, '36.4.4'.
    - ``cuda``: the newest CUDA that the driver runs, '12.6'.
    - ``memory_bytes``: of the GPU; on a Jetson it is the machine's.
    """

    name: str
    compute_capability: str
    driver: str
    cuda: str
    memory_bytes: int


def here(index: int = 0, driver: Driver | None = None) -> Device:
    """Return GPU ``index`` of this machine.

    Raises DeviceError that says what is missing: the driver, a GPU, that one of several, or a newer driver; and
    BackendMissing where neither pycuda nor cuda-python is installed.
    """
    driver = driver or load_driver()
    try:
        driver.start()
        count = driver.count()
    except CudaError as error:
        if any(words in error.name for words in _NO_GPU):
            count = 0
        elif any(words in error.name for words in _OLD_DRIVER):
            raise DeviceError(
                f"the NVIDIA driver is too old or half installed ({error}): update it, and start the machine again"
            ) from None
        else:
            raise
    if count == 0:
        raise DeviceError(
            "no NVIDIA GPU on this machine: its driver is installed and finds none. Look at nvidia-smi, and at "
            f"$CUDA_VISIBLE_DEVICES; or {_CPU_TARGETS}"
        )
    if not 0 <= index < count:
        several = f"gpu:0 to gpu:{count - 1}" if count > 1 else "gpu:0 alone"
        raise DeviceError(f"device 'gpu:{index}' is not here: the driver finds {several}")
    name, (major, minor), memory = driver.facts(index)
    cuda = driver.cuda_version()
    cuda_text = f"{cuda // 1000}.{cuda % 1000 // 10}"
    # The GPU of every Orin is called 'Orin'.
    return Device(jetson_model() or name, f"{major}.{minor}", _driver_version() or cuda_text, cuda_text, memory)


def _driver_version() -> str | None:
    """Return '580.159.04', on a Jetson '36.4.4'; ``None`` where neither can be read."""
    l4t = l4t_version()
    if l4t is not None:
        return l4t
    try:
        # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue ..."
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", _KERNEL_MODULE.read_text(errors="replace").split("\n")[0])
    except OSError:
        return None
    return found[0] if found else None
