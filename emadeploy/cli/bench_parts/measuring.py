"""What `emadeploy bench` measures on this machine: which rows, on which frames, how long, and their accuracy."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy import __version__, zoo
from emadeploy.bench.conditions import conditions
from emadeploy.bench.entrants import Entrant, broken, entrant
from emadeploy.bench.jetson.facts import read_jetson
from emadeploy.bench.jetson.watch import PowerWatch
from emadeploy.bench.layers import with_layers
from emadeploy.bench.race import Effort, race
from emadeploy.bench.rows import Report, Row
from emadeploy.cli.bench_parts.accuracy import Judge
from emadeploy.cli.bench_parts.devices import check_device
from emadeploy.cli.bench_parts.notes import notes_of
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.options import requires
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import UInt8
from emadeploy.data.source import open_data
from emadeploy.runtime.machine import describe_machine, usable_cores

#: Seconds of a stream.
_STREAM_S = 2.0
#: Ratios are known to that share, or as well as they get in so many times the seconds that each engine runs at least.
_WITHIN, _PATIENCE = 0.025, 20
#: A Jetson's power is read ten times a second: turns must hold several readings.
_BLOCK_S, _BLOCK_S_OF_JETSON = 0.25, 1.5
#: The frame, where no data is given: a made room of the size that the artifact takes.
_FRAME = "rooms:seed=7,count=1,size={}x{}"


def measure_here(order: BenchOrder) -> Report:
    """Measure what is ordered on this machine. Raises EmadeployError where that makes no sense; rows tell the rest."""
    device = check_device(order.device)
    judge = Judge.open(order)
    entrants = _entrants(order, device, judge)
    jetson = read_jetson()
    effort = _effort(order, _BLOCK_S if jetson is None else _BLOCK_S_OF_JETSON)
    with ExitStack() as stack:
        meter = None
        if jetson is not None:
            for note in jetson.notes:  # clocks that are not locked, among others
                print(f"note: {note}")
            meter = stack.enter_context(PowerWatch())
            meter.idle()
        bar = stack.enter_context(progress(f"measuring {len(entrants)} in turns"))
        rows = race(entrants, effort, against=order.against, meter=meter, progress=bar)
    if judge is not None:
        rows = [judge.judged(row, device) for row in rows]
    if order.single_task:
        from emadeploy.cli.bench_parts.single_task import with_costs

        rows = with_costs(rows, _multi(entrants, order).row.name)
    if order.layers:
        with progress("times by layer") as bar:
            rows = with_layers(rows, progress=bar)
    if jetson is not None:
        rows = [replace(row, mode={**row.mode, "power_mode": jetson.power_mode}) for row in rows]
    machine = _machine(rows) | ({} if jetson is None else {"jetson": asdict(jetson)})
    settings = {
        **order.to_dict(),
        "percentile": effort.percentile,
        "rounds": effort.rounds,
        "stream_s": effort.stream_s,
    }
    return Report(machine, settings, rows)


def _effort(order: BenchOrder, block_s: float) -> Effort:
    return Effort(
        percentile=order.percentile or (90 if order.artifacts else 50),
        min_time_s=order.min_time_s,
        warm_up=order.warm_up,
        stream_s=min(_STREAM_S, max(order.min_time_s, 0.1)),
        block_s=block_s,
        within=_WITHIN,
        most_s=_PATIENCE * order.min_time_s,
    )


def _entrants(order: BenchOrder, device: str | None, judge: Judge | None) -> list[Entrant]:
    artifacts = _named(order.artifacts) or _build(order)
    found = [_entrant(name, path, order, device, judge) for name, path in artifacts.items()]
    beside = [each for each in found if each.trouble is None]
    if order.published and "published" not in artifacts:
        path = _published(beside)
        found.insert(0, _entrant("published", path, order, device, judge))
    found += [_torch(mode, beside, order, device) for mode in order.torch]
    return found + (_single_task(beside, order) if order.single_task else [])


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the artifacts by the name of their folder, or by their path where two folders have one name."""
    names = [path.absolute().name for path in paths]
    found = {str(path) if names.count(name) > 1 else name: path for name, path in zip(names, paths, strict=True)}
    if len(found) < len(paths):
        raise SpecError(f"an artifact is given twice: {', '.join(map(str, paths))}")
    return found


def _build(order: BenchOrder) -> dict[str, Path]:
    with requires("building the engines of the zoo's model", "export"):
        from emadeploy.cli.bench_parts.engines import Engines, built_in
    wishes = built_in(order.device)
    print(f"engines of {zoo.DEMO_MODEL} that this machine runs: {', '.join(wish.name for wish in wishes)}")
    return Engines(zoo.DEMO_MODEL).build(wishes)


def _published(entrants: Sequence[Entrant]) -> Path:
    with requires("the published graph", "export"):
        from emadeploy.cli.bench_parts.engines import PUBLISHED, Wish, engines_of
    artifact = _first(entrants, "--published")
    engines = engines_of(artifact, Manifest.read(artifact))
    return engines.build([Wish(PUBLISHED, "onnxruntime-fp32", "affinity")])[PUBLISHED]


def _first(entrants: Sequence[Entrant], flag: str) -> Path:
    if not entrants or entrants[0].row.artifact is None:
        raise ArtifactError(f"{flag}: no artifact could be read, whose network that would be")
    return Path(entrants[0].row.artifact)


def _entrant(name: str, path: Path, order: BenchOrder, device: str | None, judge: Judge | None) -> Entrant:
    try:
        manifest = Manifest.read(path)
        made = entrant(name, path, _frame(manifest, judge), threads=order.threads, device=device)
    except ArtifactError as error:
        return broken(name, path, error)
    return replace(made, row=replace(made.row, notes=notes_of(manifest)))


def _single_task(entrants: Sequence[Entrant], order: BenchOrder) -> list[Entrant]:
    """Return the rows of a network per task, in the place of :func:`_multi`."""
    with requires("a network per task", "export"):
        from emadeploy.cli.bench_parts.single_task import single_task
    return single_task(_multi(entrants, order), checkpoint=order.single_task_from)


def _multi(entrants: Sequence[Entrant], order: BenchOrder) -> Entrant:
    """Return the artifact that networks per task are held against: that of --against, else the first that is ours."""
    ours = {each.row.name: each for each in entrants if each.row.artifact is not None and each.row.name != "published"}
    if not ours:
        raise ArtifactError("--single-task: no artifact could be read, in whose place the networks would be")
    return ours.get(order.against or "") or next(iter(ours.values()))


def _frame(manifest: Manifest, judge: Judge | None) -> UInt8:
    """Return a frame of the size that the artifact takes: of the data, where it has that size, else a made room."""
    if judge is not None and manifest.frame_size is None:
        return judge.frame
    height, width = manifest.frame_size or manifest.model.input.size
    return np.ascontiguousarray(open_data(_FRAME.format(height, width), split="val")[0].image)


def _torch(mode: str, entrants: Sequence[Entrant], order: BenchOrder, device: str | None) -> Entrant:
    """Return the row of the first artifact's checkpoint in PyTorch."""
    with requires("a PyTorch row", "train"):
        from emadeploy.cli.bench_parts.engines import engines_of
    artifact = _first(entrants, "--torch")
    manifest = Manifest.read(artifact)
    network = engines_of(artifact, manifest).source
    checkpoint = network.record
    source = str(checkpoint.get("checkpoint") or checkpoint["model"]).removeprefix("zoo model ")
    row = replace(
        entrants[0].row,
        name=f"torch-{mode}",
        target=f"torch-{mode}",
        size_mb=None,
        artifact=None,
        digest=checkpoint.get("sha256"),
        precision={},
        mode={**entrants[0].row.mode, "tasks": list(network.spec.task_names)},
        notes=("the checkpoint's network in PyTorch, every task of it",),
    )
    argv = (sys.executable, "-m", "emadeploy.cli.bench_parts.torch_child", mode, str(artifact.absolute()), source)
    return Entrant(row, argv, entrants[0].frame, device)


def _machine(rows: Sequence[Row]) -> dict[str, Any]:
    engines = {str(row.engine["engine"]): row.engine.get("version") for row in rows if "engine" in row.engine}
    gpus = sorted({str(row.engine["gpu"]) for row in rows if "gpu" in row.engine})
    now = conditions()
    return {
        **describe_machine(),
        "threads": usable_cores(),
        "governor": now.governor,
        "gpu": ", ".join(gpus) or None,
        "versions": {
            "emadeploy": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **{name: version for name, version in engines.items() if version is not None},
        },
    }
