"""What `emadeploy demo` does, stage after stage: export, render, measure, run, judge, draw."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emadeploy.bench.measure import measure
from emadeploy.bench.page import Facts, Page
from emadeploy.bench.rows import Row
from emadeploy.cli.demo_parts import frames, judge
from emadeploy.cli.demo_parts.findings import GRAPHS, Findings
from emadeploy.cli.demo_parts.judge import Maps
from emadeploy.cli.demo_parts.page import compose
from emadeploy.cli.options import requires
from emadeploy.cli.progress import progress
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Sample
from emadeploy.runtime.machine import describe_machine, usable_cores


@dataclass(frozen=True, eq=False)
class Shown:
    """The frames of a demo, and what each graph that could run answered: ``answers[graph][frame]``, rooms first."""

    rooms: Sequence[Sample]
    photographs: Sequence[frames.Photograph]
    answers: Mapping[str, Sequence[Maps]]

    @property
    def samples(self) -> list[Sample]:
        """All frames, rooms first."""
        return [*self.rooms, *(photograph.sample for photograph in self.photographs)]


def find_out(model: str, output: Path, room_count: int, *, untrained: bool) -> tuple[Findings, Shown]:
    """Do everything but the page; return the numbers, and the frames with their maps. Raises any EmadeployError.

    Artifacts come to ``output``/published and ``output``/rewritten; ``room_count`` rooms are rendered at the model's
    size. A graph that cannot be run here (its process died) is reported as such, and has no maps.
    """
    photographs = frames.photographs()  # first: it is quick, and tells whether the extra is installed
    artifacts = _export(model, output, untrained=untrained)
    manifest = Manifest.read(artifacts["rewritten"])
    with progress("rendering rooms") as report:
        dataset = frames.rooms(room_count, manifest.model.input.size, usable_cores(), report)
    rooms = [dataset[index] for index in range(len(dataset))]
    with progress("measuring both in turns") as report:
        rows = measure(artifacts, rooms[0].image, progress=report)
    shown = Shown(rooms, photographs, {})
    shown = replace(shown, answers=_answers(rows, artifacts, shown.samples))
    found = Findings(
        spec=manifest.model,
        untrained=manifest.untrained,
        machine=describe_machine(),
        versions={**manifest.versions, "python": platform.python_version(), "numpy": np.__version__},
        rows=tuple(_with_metrics(row, manifest.model, shown) for row in rows),
        parameters=tuple(_parameters(path) for path in artifacts.values()),
        room_data=dataset.description,
        room_count=len(rooms),
        frame_count=len(shown.samples),
        photograph=_photograph_metrics(manifest.model, shown),
        agreement=_agreement(manifest.model, shown),
    )
    return found, shown


def page(found: Findings, shown: Shown, table: Facts) -> Page:
    """Return the page: the ``table``, the machine, and the pictures."""
    count, machine = len(shown.rooms), found.machine
    facts = [
        ("machine", f"{machine.get('cpu', 'unknown')}, {machine['architecture']}"),
        ("threads", str(found.rows[0].threads)),
        ("memory", f"{machine['memory_mb'] / 1024:.0f} GiB" if "memory_mb" in machine else "unknown"),
        ("system", str(machine["system"])),
        ("rooms", found.room_data),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items() if name != "cpu")),
    ]
    return compose(
        found.spec,
        (shown.rooms, {name: maps[:count] for name, maps in shown.answers.items()}),
        (shown.photographs, {name: maps[count:] for name, maps in shown.answers.items()}),
        table,
        facts,
        untrained=found.untrained,
    )


def _export(model: str, output: Path, *, untrained: bool) -> dict[str, Path]:
    with requires("the demo", "demo"):
        import cv2  # noqa: F401 - the page needs it, minutes from now

        from emadeploy.cli.exporting.make import make_artifact
        from emadeploy.cli.exporting.order import Order
        from emadeploy.export.stage import Wanted

    return {
        name: make_artifact(model, Order(output=output / name, wanted=Wanted(ctal=form), untrained=untrained))
        for name, form in GRAPHS.items()
    }


def _answers(rows: Sequence[Row], artifacts: Mapping[str, Path], samples: Sequence[Sample]) -> dict[str, list[Maps]]:
    answers = {}
    for row in rows:
        # What a process of its own could not hold must not take this one with it.
        if row.measured:
            with progress(f"running the {row.name} graph on every frame") as report:
                answers[row.name] = judge.answer(artifacts[row.name], samples, report)
    return answers


def _with_metrics(row: Row, spec: ModelSpec, shown: Shown) -> Row:
    if row.name not in shown.answers:
        return row
    on_rooms = shown.answers[row.name][: len(shown.rooms)]
    return replace(row, tasks=judge.metrics(spec, on_rooms, shown.rooms))


def _photograph_metrics(spec: ModelSpec, shown: Shown) -> dict[str, dict[str, float]]:
    first = len(shown.rooms)
    return {
        name: judge.photograph_metrics(spec, maps[first], shown.photographs[0].sample)
        for name, maps in shown.answers.items()
    }


def _agreement(spec: ModelSpec, shown: Shown) -> dict[str, dict[str, float]]:
    if set(shown.answers) != set(GRAPHS):
        return {}
    return judge.agreement(spec, shown.answers["rewritten"], shown.answers["published"])


def _parameters(artifact: Path) -> int:
    """Return how many numbers the graph of an artifact holds: the weights as they are deployed."""
    import onnx

    graph = onnx.load(artifact / Manifest.read(artifact).engine_file).graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    return sum(math.prod(tensor.dims) for tensor in floats)
