"""Which device a bench runs on, and whether it is here."""

from __future__ import annotations

import re

from emadeploy.contract.errors import DeviceError, EmadeployError, SpecError

#: Names of devices that are this machine's.
HERE = ("auto", "cpu", "gpu", "jetson")


def check_device(name: str) -> str | None:
    """Return the device for the runtime, ``None`` for each engine's usual one.

    Raises SpecError for a name that is none, DeviceError where the device is not here.
    """
    if name in ("auto", "jetson"):
        return None
    if name == "cpu":
        return name
    if re.fullmatch(r"gpu(:\d+)?", name) is None:
        raise SpecError(f"--device {name!r} is unknown; known: {', '.join(HERE)}, gpu:N")
    missing = _missing_gpu(name)
    if missing is not None:
        raise DeviceError(f"--device {name}: {missing}")
    return name


def _missing_gpu(name: str) -> str | None:
    """Return why no engine can run on GPU ``name``; ``None`` where one can."""
    from emadeploy.cli.doctor import engines
    from emadeploy.runtime.trt.device import here

    if any(device.split(".")[0] == "gpu" for devices in engines().values() for device in devices):
        return None
    _, _, index = name.partition(":")
    try:
        here(int(index or 0))
    except EmadeployError as error:
        return str(error)
    return None
