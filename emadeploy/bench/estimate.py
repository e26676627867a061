"""Times and memory of a network on a machine that is not here, from its layers and the machine's rates.

A layer takes at least as long as its arithmetic at the highest rate, and as its bytes at the highest bandwidth. Two
times are told, and kept apart:

- **bound**: no engine that runs layer by layer is faster. Highest rates, only convolutions and products count, and of
  their bytes only maps that no cache can hold.
- **likely**: what to expect. Rates times the shares that engines reach, channels filled up to what the multipliers take
  at once, every layer counted, and a launch for each.

docs/estimates.md has where the shares come from, and how far off they were where it could be measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from emadeploy.bench.devices import Device
from emadeploy.contract.work import ARITHMETIC, Layer, Work

#: Precision -> share of the highest rate that the best kernels reach. Seen elsewhere: 66 % in float16 on an Orin Nano,
#: 40 % in int8 on a Thor. TF32 is taken as float16.
SUSTAINED: Mapping[str, float] = MappingProxyType({"int8": 0.40, "fp16": 0.66, "fp32": 0.66})
#: Share of the highest bandwidth that copying reaches: assumed, as no number was found.
SUSTAINED_BYTES = 0.75
#: Kind -> share of what the best kernels reach in arithmetic. Set after what OpenVINO's int8 reaches on a CPU with
#: AVX-512; that of depthwise convolutions, which do not run on the matrix units, is assumed.
ARITHMETIC_SHARE: Mapping[str, float] = MappingProxyType({"conv": 0.9, "product": 0.9, "depthwise": 0.1})
#: Kind -> share of what copying reaches: gathering from places far apart, or from several for one value, reaches less.
#: Assumed.
BYTES_SHARE: Mapping[str, float] = MappingProxyType(
    {"conv": 1.0, "product": 1.0, "depthwise": 1.0, "pointwise": 1.0, "resize": 0.5, "reduce": 0.5, "move": 0.5}
)
#: Channels (read, answered) that the multipliers take at once; fewer, and the rest idles.
GRANULES: Mapping[str, tuple[int, int]] = MappingProxyType({"int8": (32, 32), "fp16": (16, 16), "fp32": (8, 16)})
#: Where filling up would cost more than this, an engine leaves the matrix units for the ordinary ones. Assumed.
MOST_FILLING = 8.0
#: Seconds from one kernel to the next within a CUDA graph. Assumed; on desktops 4 to 6 us are told without a graph.
LAUNCH = 5e-6
#: MB that CUDA, TensorRT and the process take beside the network, and that system and desktop take of the memory that
#: they share with the GPU. Assumed.
RUNTIME_MB, SYSTEM_MB = 700.0, 1500.0


@dataclass(frozen=True)
class Machine:
    """What an estimate needs of a machine.

    - ``macs_per_second``: by precision, at the most. ``bytes_per_second``. ``cache_bytes``: maps up to this size may
      never reach the memory.
    - ``sustained``, ``sustained_bytes``: the share of them that the best kernels reach; 1 where they were measured.
    - ``granules``: as GRANULES. ``launch``: seconds per layer.
    """

    macs_per_second: Mapping[str, float]
    bytes_per_second: float
    cache_bytes: float
    sustained: Mapping[str, float]
    sustained_bytes: float
    granules: Mapping[str, tuple[int, int]]
    launch: float

    @classmethod
    def of(cls, device: Device) -> Machine:
        """Return the machine that ``device`` is."""
        rates, cache = device.macs_per_second, device.cache_mb * 2**20
        return cls(rates, device.bandwidth_gbs * 1e9, cache, SUSTAINED, SUSTAINED_BYTES, GRANULES, LAUNCH)

    def as_here(self, precision: str) -> str:
        """Return the precision in which a layer of ``precision`` runs: a machine without bf16 has fp16."""
        return precision if precision in self.macs_per_second else "fp16"


@dataclass(frozen=True)
class Estimate:
    """Milliseconds of a frame, the network alone, and MB of memory. Nothing of it was measured.

    - ``bound_ms``: at least; ``likely_ms``: what to expect; ``kinds_ms``, ``branches_ms``: the latter's parts.
    - ``network_mb``: weights and maps; ``memory_mb``: with what runs them.
    """

    bound_ms: float
    likely_ms: float
    kinds_ms: Mapping[str, float]
    branches_ms: Mapping[str, float]
    network_mb: float
    memory_mb: float


def estimate(work: Work, machine: Machine) -> Estimate:
    """Return what ``work`` takes on ``machine``."""
    kinds, branches = Counter[str](), Counter[str]()
    for layer in work.layers:
        milliseconds = 1e3 * likely_seconds(layer, machine)
        kinds[layer.kind] += milliseconds  # type: ignore[assignment]
        branches[layer.branch] += milliseconds  # type: ignore[assignment]
    network = (work.weight_bytes + work.activation_bytes) / 1e6
    return Estimate(
        bound_ms=1e3 * sum(bound_seconds(layer, machine) for layer in work.layers),
        likely_ms=float(sum(kinds.values())),
        kinds_ms=dict(kinds),
        branches_ms=dict(branches),
        network_mb=network,
        memory_mb=network + RUNTIME_MB,
    )


def bound_seconds(layer: Layer, machine: Machine) -> float:
    """Return the seconds that ``layer`` takes at least; 0 for what could be done on the way to another layer."""
    if layer.kind not in ARITHMETIC:
        return 0.0
    arithmetic = layer.macs / machine.macs_per_second[machine.as_here(layer.precision)]
    streamed = layer.weights + sum(bytes_ for bytes_ in (*layer.reads, *layer.writes) if bytes_ > machine.cache_bytes)
    return max(arithmetic, streamed / machine.bytes_per_second)


def likely_seconds(layer: Layer, machine: Machine) -> float:
    """Return the seconds that ``layer`` may be expected to take."""
    moved = layer.weights + sum(layer.reads) + sum(layer.writes)
    seconds = moved / (machine.bytes_per_second * machine.sustained_bytes * BYTES_SHARE[layer.kind])
    if layer.kind in ARITHMETIC:
        precision = machine.as_here(layer.precision)
        rate = machine.macs_per_second[precision] * machine.sustained[precision] * ARITHMETIC_SHARE[layer.kind]
        seconds = max(seconds, layer.macs * filling(layer, machine.granules[precision]) / rate)
    return seconds + machine.launch


def filling(layer: Layer, granule: tuple[int, int]) -> float:
    """Return how many times the multipliers do more than ``layer`` needs, because they take ``granule`` at once.

    Not more than MOST_FILLING: from there on an engine leaves them for the ordinary units.
    """
    if layer.kind == "depthwise" or not layer.macs:
        return 1.0
    inner, outer = (
        -(-size // step) * step / size for size, step in zip((layer.inner, layer.outer), granule, strict=True)
    )
    return min(inner * outer, MOST_FILLING)


def fits(found: Estimate, device: Device) -> bool:
    """Whether ``device`` has the memory for it, beside its system."""
    return found.memory_mb <= device.memory_gb * 1e3 - SYSTEM_MB
