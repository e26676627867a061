"""Rows of `bench --single-task`: a network per task in the place of one for all, each alone and all in turn.

The networks are those of the `stl` baseline: for every task the backbone of the multi-task network and a head.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from emadeploy.bench.entrants import CHILD, Entrant, entrant
from emadeploy.bench.rows import Row
from emadeploy.cli.bench_parts.engines import Engines, Wish
from emadeploy.cli.options import requires
from emadeploy.contract.cache import CHOOSE_CACHE, default_cache_dir
from emadeploy.contract.errors import BuildError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import ModelSpec

CHAIN = (sys.executable, "-m", "emadeploy.bench.chain")
_ALONE, _ALL = "{} alone", "{} networks"
#: Field of a row -> what a network per task takes more of.
_COSTS = {
    "time per frame": lambda row: (row.end_to_end_ms or {}).get("p50"),
    "energy": lambda row: row.energy_j,
    "memory": lambda row: row.peak_memory_mb,
    "memory of the GPU": lambda row: row.device_memory_mb,
    "disk": lambda row: row.size_mb,
}
Report = Callable[[str], None]


def single_task(multi: Entrant, *, checkpoint: str | None = None, report: Report = print) -> list[Entrant]:
    """Return the entrants of a network per task of the artifact of ``multi``: one for each, and one for all in turn.

    They are of its target and its size, and run on its frame, device and threads. The weights are those of
    ``checkpoint``, a network `stl` with those tasks; without one they are random, good for speed alone, and said so.

    Raises SpecError for an artifact of one task or with a frame size, and a checkpoint of another network or without
    one of its tasks; and as `Engines.build`.
    """
    assert multi.row.artifact is not None
    manifest = Manifest.read(Path(multi.row.artifact))
    _check(manifest, multi.row.name)
    places = {
        task.name: _engine(manifest, task.name, checkpoint, report) for task in manifest.model.tasks
    }  # in the order of the network
    alone = [_alone(multi, task, place) for task, place in places.items()]
    return [*alone, _together(multi, alone)]


def with_costs(rows: Sequence[Row], multi: str) -> list[Row]:
    """Return ``rows``; the one of all networks in turn says how much more than the row ``multi`` it takes."""
    base = next(row for row in rows if row.name == multi)
    # What random weights answer is no accuracy.
    rows = [replace(row, tasks={}, data=None) if row.untrained and row.name in _names(rows) else row for row in rows]
    return [_with_costs(row, base, rows) if row.engine.get("networks") else row for row in rows]


def _check(manifest: Manifest, name: str) -> None:
    tasks = manifest.model.task_names
    if len(tasks) < 2:
        raise SpecError(f"--single-task: {name} answers {', '.join(tasks)} alone; it takes one of several tasks")
    if manifest.frame_size is not None:
        raise SpecError(
            f"--single-task: {name} takes frames of one size and decodes in its graph; it takes an artifact exported "
            "without --frame-size"
        )


def _engine(manifest: Manifest, task: str, checkpoint: str | None, report: Report) -> Path:
    if checkpoint is None:
        engines = Engines(str(_model_file(manifest.model)), untrained=True, tasks=(task,), report=report)
    else:
        engines = Engines(checkpoint, size=manifest.model.input.size, tasks=(task,), report=report)
        spec = engines.source.spec
        if spec.network != "stl" or task not in spec.task_names:
            raise SpecError(
                f"{checkpoint} is a {spec.network} network with {', '.join(spec.task_names)}; --single-task-from takes "
                f"one of network stl with {', '.join(manifest.model.task_names)}: see emadeploy models"
            )
    wish = Wish(f"{task}.{manifest.target}", manifest.target)
    return engines.build([wish])[wish.name]


def _model_file(model: ModelSpec) -> Path:
    """Write the model.yml of the stl network of ``model`` into the cache, and return its path."""
    with requires("a network per task", "export"):
        import yaml
    data = {**replace(model, network="stl").to_dict()}
    del data["name"]
    digest = hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = default_cache_dir() / "bench" / digest / f"{model.name}-stl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise BuildError(f"the cache of engines cannot be written: {error}; {CHOOSE_CACHE}") from None
    return folder / "model.yml"


def _alone(multi: Entrant, task: str, place: Path) -> Entrant:
    made = entrant(_ALONE.format(task), place, multi.frame, threads=multi.row.threads, device=multi.device, child=CHILD)
    return replace(made, row=_comparable(made.row, multi.row))


def _together(multi: Entrant, alone: Sequence[Entrant]) -> Entrant:
    places = [str(Path(str(each.row.artifact)).absolute()) for each in alone]
    row = replace(
        alone[0].row,
        name=_ALL.format(len(alone)),
        size_mb=sum(each.row.size_mb or 0.0 for each in alone),
        mode={**alone[0].row.mode, "tasks": list(multi.row.mode["tasks"])},
        artifact=None,
        digest=None,
        precision={},
        notes=("one per task, in one process: each frame through one after the other",),
    )
    return replace(multi, row=row, argv=(*CHAIN, *places))


def _comparable(row: Row, multi: Row) -> Row:
    # Random weights take the same multiplications as trained ones: the row says that it has them, and its times count.
    return replace(row, mode={**row.mode, "untrained": multi.mode["untrained"]})


def _with_costs(row: Row, base: Row, rows: Sequence[Row]) -> Row:
    row = replace(row, tasks=_metrics(rows), data=base.data)
    if not (row.measured and base.measured):
        return row
    ratios = {
        what: of_all / of_one
        for what, value in _COSTS.items()
        if (of_all := value(row)) is not None and (of_one := value(base))
    }
    told = ", ".join(f"{ratio:.2f} times the {what}" for what, ratio in ratios.items())
    return replace(row, notes=(*row.notes, f"of {base.name}, one network for all tasks, they take {told}"))


def _metrics(rows: Sequence[Row]) -> Mapping[str, Mapping[str, float]]:
    """Return the metrics of all networks in turn: those of each network alone."""
    names = _names(rows)
    return {names[row.name]: row.tasks[names[row.name]] for row in rows if row.name in names and row.tasks}


def _names(rows: Sequence[Row]) -> Mapping[str, str]:
    """Return the tasks by the names of their rows."""
    return {_ALONE.format(task): task for row in rows for task in row.mode.get("tasks", ())}
