"""Rows for devices that are not here: computed from layers, and told as estimates in every line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emadeploy.bench.columns import ESTIMATE, milliseconds, rate
from emadeploy.bench.devices import Device, devices, find_device
from emadeploy.bench.estimate import Estimate, Machine, estimate, fits
from emadeploy.bench.rows import MEASURED, Row
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.contract.work import Work, from_json
from emadeploy.zoo import DEMO_MODEL, assets

if TYPE_CHECKING:
    from rich.console import Console

ALL = "jetson"
WORK_NAME = "work.json"
_WHAT = (
    "estimates, not measured: from the layers and the data sheet of the device in its highest power mode. MB with what "
    "CUDA and TensorRT take. docs/estimates.md has the method, and how far off it was where that could be checked"
)
_SHIPPED = (
    f"{DEMO_MODEL}: the graph as published, and rewritten with CTAL exact and on a basis of kernels; for a network of "
    "your own, name its artifact"
)
_PUBLISHED = (
    "published in fp16 and int8: as if all of it could be had so, which no export makes: in float16 it overflows"
)


def is_estimate(device: str) -> bool:
    """Whether `--device` asks for an estimate: a Jetson by its name, or 'jetson' on a machine that is none."""
    from emadeploy.bench.jetson import read_jetson

    return device.startswith(f"{ALL}-") or (device == ALL and read_jetson() is None)


def estimate_rows(device: str, artifacts: Sequence[Path] = ()) -> list[Row]:
    """Return the rows for ``device``, 'jetson' being all of the table, from the layers of ``artifacts``.

    Without artifacts: the zoo's demo model as published, with CTAL exact and on a basis, in float16 and int8, from the
    tables that are shipped with it. Raises DeviceError for an unknown device, ArtifactError for an artifact without a
    graph, BackendMissing where its graph cannot be read.
    """
    wanted = list(devices().values()) if device == ALL else [find_device(device)]
    works = list(_of_artifacts(artifacts)) if artifacts else list(_shipped())
    return [_row(each, work) for each in wanted for work in works]


def print_estimates(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print ``rows`` as a table: under each device a line for each network."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("network", vertical="bottom", overflow="fold", min_width=max(map(len, devices())))
    for head in ("target", ""):
        table.add_column(head, vertical="bottom", no_wrap=True)
    for head in ("least\nms", "likely\nms", "fps", "MB", "fits"):
        table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    above = None
    for row in rows:
        if row.mode["device"] != above:
            above = row.mode["device"]
            table.add_row(Text(str(above), style="bold"))
        table.add_row(*map(Text, _cells(row)), style="italic" if row.engine["fits"] else "yellow")
    console.print(table)
    general = [_WHAT, *([] if any(row.artifact for row in rows) else [_SHIPPED])]
    for note in dict.fromkeys([*general, *(note for row in rows for note in row.notes)]):
        console.print(Text(note))


def _cells(row: Row) -> list[str]:
    times = row.latency_ms or {}
    numbers = [milliseconds(times["bound"]), milliseconds(times["p50"]), rate(row.fps or 0.0)]
    fit = "yes" if row.engine["fits"] else "no"
    return [f"  {row.engine['network']}", row.target, ESTIMATE, *numbers, f"{row.peak_memory_mb or 0:.0f}", fit]


@dataclass(frozen=True)
class _Network:
    """A network in a precision: its name in a table, the target that would run it, and what it takes."""

    name: str
    target: str
    work: Work
    artifact: Path | None = None
    notes: Sequence[str] = ()


def _shipped() -> Iterator[_Network]:
    path = assets("models") / DEMO_MODEL / WORK_NAME
    try:
        _, graphs = from_json(path.read_text(encoding="utf-8"))
    except (OSError, SpecError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): install emadeploy again, or name an ARTIFACT") from None
    for graph, works in graphs.items():
        for precision, work in works.items():
            notes = [_PUBLISHED] if graph == "published" and precision != "fp32" else []
            yield _Network(graph, f"trt-{precision}", work, notes=notes)


def _of_artifacts(artifacts: Sequence[Path]) -> Iterator[_Network]:
    from emadeploy.work.artifact import read_work

    for path in artifacts:
        manifest = Manifest.read(path)
        engine, precision = TARGETS[manifest.target]
        name = path.resolve().name
        if engine.startswith("tensorrt"):
            yield _Network(name, manifest.target, read_work(path), path)
            continue
        # The engines of CPUs do not run on a Jetson's GPU, but the same layers would.
        target = "trt-int8" if precision == "int8" else "trt-fp16"
        note = f"{name} is an artifact of {manifest.target}: as if its graph had been exported for {target}"
        yield _Network(name, target, read_work(path, uniform=None if precision == "int8" else "fp16"), path, [note])


def _row(device: Device, network: _Network) -> Row:
    found = estimate(network.work, Machine.of(device))
    return Row(
        name=f"{device.name}: {network.name}, {network.target}",
        target=network.target,
        status=MEASURED,
        size_mb=network.work.weight_bytes / 1e6,
        threads=None,
        latency_ms={"p50": found.likely_ms, "bound": found.bound_ms},
        fps=1e3 / found.likely_ms,
        peak_memory_mb=found.memory_mb,
        estimate=True,
        mode={"device": device.name, "estimate": True},
        engine=_facts(device, network, found),
        artifact=str(network.artifact) if network.artifact else None,
        notes=(*network.notes, *_doubts(device)),
    )


def _facts(device: Device, network: _Network, found: Estimate) -> Mapping[str, object]:
    return {
        "device": device.title,
        "network": network.name,
        "compute_capability": device.compute_capability,
        "power_modes": device.power_modes,
        "fits": fits(found, device),
        "kinds_ms": dict(found.kinds_ms),
        "branches_ms": dict(found.branches_ms),
    }


def _doubts(device: Device) -> Iterator[str]:
    if device.third_party:
        yield f"{device.name}: not from NVIDIA's documents: {', '.join(device.third_party)}"
