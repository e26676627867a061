"""The devices that estimates are made for: what their makers say of them, in `devices.json`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources

from emadeploy.contract.errors import DeviceError


@dataclass(frozen=True)
class Device:
    """A Jetson, as its data sheet has it; the GPU alone.

    - ``int8_tops``, ``fp16_tflops``, ``fp32_tflops``: dense; a multiply-accumulate counts as two operations.
    - ``bandwidth_gbs``: of the memory, 10^9 bytes per second; ``memory_gb``: for CPU and GPU together.
    - ``cache_mb``: the GPU's L2. ``power_modes``: those it has; rates and bandwidth are of the highest.
    - ``third_party``: fields that are not from NVIDIA's documents.
    """

    name: str
    title: str
    compute_capability: str
    gpu_mhz: float
    int8_tops: float
    fp16_tflops: float
    fp32_tflops: float
    bandwidth_gbs: float
    memory_gb: float
    cache_mb: float
    power_modes: str
    third_party: tuple[str, ...]

    @property
    def macs_per_second(self) -> Mapping[str, float]:
        """Multiply-accumulates per second by precision, at the most."""
        return {"int8": self.int8_tops * 5e11, "fp16": self.fp16_tflops * 5e11, "fp32": self.fp32_tflops * 5e11}


@cache
def devices() -> Mapping[str, Device]:
    """Return the table, by name, smallest first."""
    text = resources.files("emadeploy.bench").joinpath("devices.json").read_text(encoding="utf-8")
    known = {field.name for field in fields(Device)}
    made = []
    for row in json.loads(text)["devices"]:
        assert row.keys() == known, row
        made.append(Device(**{**row, "third_party": tuple(row["third_party"])}))
    return {device.name: device for device in made}


def find_device(name: str) -> Device:
    """Return the device of this name; raises DeviceError that lists the known ones."""
    table = devices()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DeviceError(f"device {name!r} is unknown{hint} Known: {', '.join(table)}, and jetson for all of them")
    return table[name]
