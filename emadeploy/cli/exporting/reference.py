"""The network in float32, which int8 is compared with: measured once per machine, or shipped with the zoo's weights.

A shipped record (``models/NAME/float32.json``, written by tools/ship_float32.py) is used where all that it was measured
of is what is asked for now: weights, specification with its size, tasks, form of CTAL, and rooms, which are the same
wherever the same version of the generator makes them. Otherwise the network is measured here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy import __version__, zoo
from emadeploy.build import builder
from emadeploy.cli.progress import progress
from emadeploy.contract.cache import CHOOSE_CACHE, default_cache_dir
from emadeploy.contract.errors import DataError
from emadeploy.contract.plain import to_plain
from emadeploy.data.rooms.render import GENERATOR_VERSION
from emadeploy.data.sample import Dataset
from emadeploy.evaluate.records import read_record, write_record
from emadeploy.evaluate.run import SCHEMA, evaluate
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.runtime import load

Report = Callable[[str], None]

SHIPPED = "float32.json"
#: Key of a record that says where it was measured, for the manifest.
MEASURED = "measured"


def float32_record(source: Source, tasks: Sequence[str], data: Dataset, folder: Path, report: Report) -> dict[str, Any]:
    """Return the record of the network in float32, CTAL exact, on ``data``: shipped, from the cache, or measured now.

    Its 'measured' says which. What is made on the way lies in ``folder``.
    """
    record = shipped(source, tasks, data)
    if record is None:
        return {**measure(source, tasks, data, folder, report), MEASURED: "where it was exported"}
    report(f"float32 on {data.description} ({len(data)} frames): the record that ships with {source.spec.name}")
    return record


def shipped(source: Source, tasks: Sequence[str], data: Dataset, models: Path | None = None) -> dict[str, Any] | None:
    """Return the record that ships with the model; ``None`` where none was measured of just this, or it is damaged."""
    path = (models or zoo.assets("models")) / source.spec.name / SHIPPED
    facts = facts_of(source, tasks, data)
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["records"]:
            if entry["of"] == facts and entry["sha256"] == checksum(facts, entry["record"]):
                return {**entry["record"], MEASURED: f"on {entry['on']}, and shipped with {source.spec.name}"}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none ships, or it is damaged: measured here
    return None


def facts_of(source: Source, tasks: Sequence[str], data: Dataset) -> dict[str, Any]:
    """Return what a shipped record is a record of; rooms alone are the same everywhere by their description."""
    # How the weights were trained is no part of what they answer.
    spec = {name: value for name, value in to_plain(source.spec).items() if name not in ("train", "description")}
    return {
        "weights": source.record.get("sha256"),
        "spec": _sha256(spec),
        "tasks": list(tasks),
        "ctal": "exact",
        "data": data.description,
        "frames": len(data),
        "generator": GENERATOR_VERSION,
        "schema": SCHEMA,
    }


def checksum(facts: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the SHA-256 that an entry carries: a number changed by hand is not one that was measured."""
    return _sha256([facts, record])


def measure(source: Source, tasks: Sequence[str], data: Dataset, folder: Path, report: Report) -> dict[str, Any]:
    """Return the same record from the cache, where it is there, else measured now and kept there.

    Raises DataError where the cache cannot be written, and what exporting and evaluating raise.
    """
    facts = [source.record.get("sha256"), to_plain(source.spec), tasks, (data.description, _digest(data)), __version__]
    path = default_cache_dir() / "reference" / f"{_sha256(facts)[:32]}.json"
    try:
        return read_record(path)
    except DataError:
        pass  # not there, or damaged: measured now
    graph = export_graph(source, Wanted(tasks=tuple(tasks)), folder / "reference-graph", report=lambda _: None)
    builder("onnxruntime")(graph, folder / "reference", "onnxruntime-fp32")
    report(f"evaluating float32 on {data.description} ({len(data)} frames)")
    record = evaluated(folder / "reference", data, "evaluating float32")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be made: {error}; {CHOOSE_CACHE}") from None
    write_record(path, record)
    return record


def evaluated(artifact: Path, data: Dataset, title: str) -> dict[str, Any]:
    """Return the record of an artifact on the data."""
    with load(artifact) as perception, progress(title) as bar:
        return evaluate(lambda frame: perception(frame).maps, data, perception.spec.tasks, bar)


def _digest(data: Dataset) -> str:
    """Return the SHA-256 of all frames and truths: a folder may hold others than it did when it was judged before."""
    sha = hashlib.sha256()
    for index in range(len(data)):
        sample = data[index]
        for name, values in (("image", sample.image), *sorted(sample.truth.items())):
            sha.update(f"{name}{values.dtype}{values.shape}".encode())
            sha.update(np.ascontiguousarray(values))
    return sha.hexdigest()


def _sha256(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
