"""The table: the range of every tensor to quantise, made by running the graph over the frames, and kept on disk.

    CACHE/calibration/KEY.json    KEY: digest of the digests of graph, frames and recipe, all of which stand inside

A table is used again only where all three are the same; one that is damaged is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime as ort

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.histogram import Histogram
from emadeploy.calibrate.ranges import Range, choose_range
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.side_by_side import answers, options
from emadeploy.contract.cache import CHOOSE_CACHE, default_cache_dir
from emadeploy.contract.errors import CalibrationError
from emadeploy.contract.manifest import file_digest

SCHEMA = 2
#: Results of a frame that are held. More tensors than fit are watched in several runs over the frames.
MEMORY = 640 * 2**20

#: Called with the number of frames run and the number of all.
Progress = Callable[[int, int], None]
Table = dict[str, Range]


def ranges_of(
    graph: OnnxGraph,
    model: onnx.ModelProto,
    tensors: Collection[str],
    frames: CalibrationFrames,
    recipe: Recipe,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> Table:
    """Return the ranges of ``tensors`` of ``graph``, whose content ``model`` is, from the cache where it has them.

    ``recipe`` is resolved (`Recipe.resolved`). Raises CalibrationError where a tensor is not finite or the cache
    cannot be written.
    """
    digests = {"graph": file_digest(graph.path), "frames": frames.digest, "recipe": recipe.digest()}
    key = hashlib.sha256(json.dumps([SCHEMA, digests], sort_keys=True).encode()).hexdigest()
    path = cache_folder(cache_dir) / f"{key}.json"
    table = _read(path, digests)
    if table is None or not set(tensors) <= set(table):
        seen = observe(model, tensors, frames, graph, counts=recipe.method != "minmax", progress=progress)
        table = {name: choose_range(histogram, recipe) for name, histogram in seen.items()}
        _write(path, digests, table)
    return table


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Return where what calibration finds is kept: ``calibration`` in ``cache_dir``, default `default_cache_dir`."""
    return (cache_dir or default_cache_dir()) / "calibration"


def observe(
    model: onnx.ModelProto,
    tensors: Collection[str],
    frames: CalibrationFrames,
    graph: OnnxGraph,
    *,
    counts: bool = True,
    progress: Progress | None = None,
    memory: int = MEMORY,
) -> dict[str, Histogram]:
    """Run ``model`` over the frames; return what each of ``tensors`` took, without ``counts`` the ends alone.

    Results of a frame take at most ``memory`` bytes, or those of one tensor; two frames are held at a time. Raises
    CalibrationError.
    """
    seen = {name: Histogram() for name in tensors}
    [given] = graph.inputs
    # The input is counted beside the first group, which is there even where nothing else is to be watched.
    groups = list(_groups(model, [name for name in seen if name != given.name], memory)) or [[]]
    total = len(frames) * len(groups)
    for number, group in enumerate(groups):
        feeds = frames.feeds(given)
        runs = answers(_session(model, group), group, feeds) if group else ((feed, []) for feed in feeds)
        for index, (feed, results) in enumerate(runs):
            values = dict(zip(group, results, strict=True))
            if number == 0 and given.name in seen:
                values |= feed
            for name, value in values.items():
                _count(seen[name], value, counts, f"{graph.path}: {name!r} on frame {index} of {frames.description}")
            # Before the next frame begins: two are held, not three.
            values.clear()
            results.clear()
            if progress:
                progress(number * len(frames) + index + 1, total)
    return seen


def _count(histogram: Histogram, value: npt.NDArray[Any], counts: bool, where: str) -> None:
    try:
        (histogram.add if counts else histogram.extend)(value)
    except ValueError:
        raise CalibrationError(
            f"{where} is not finite: the network itself is damaged there; evaluate it in fp32 first"
        ) from None


def _groups(model: onnx.ModelProto, names: list[str], memory: int) -> Iterator[list[str]]:
    """Yield the names, those together whose values fit into ``memory``."""
    sizes = {value.name: _bytes(value) for value in (*model.graph.value_info, *model.graph.output)}
    group: list[str] = []
    held = 0
    for name in names:
        size = sizes.get(name, memory)
        if group and held + size > memory:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _bytes(value: onnx.ValueInfoProto) -> int:
    return 4 * math.prod(extent.dim_value for extent in value.type.tensor_type.shape.dim)


def _session(model: onnx.ModelProto, outputs: list[str]) -> ort.InferenceSession:
    """Return a session of the graph that also answers ``outputs``."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    there = {value.name for value in watched.graph.output}
    for name in outputs:
        if name not in there:
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    settings, data = options(), watched.SerializeToString()
    make = partial(ort.InferenceSession, data, settings, providers=["CPUExecutionProvider"], enable_fallback=0)
    try:
        return make()
    except RuntimeError:
        # Where it lays out convolutions in blocks of channels, ONNX Runtime 1.32 may lose an answer that an Add reads
        # too ("Failed to find node output"). Without these layouts it is slower, and does not.
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return make()


def _read(path: Path, digests: Mapping[str, str]) -> Table | None:
    """Return the table at ``path``; ``None`` where there is none, or it is damaged or that of something else."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA or data["digests"] != dict(digests) or data["sha256"] != _checksum(data["ranges"]):
            return None
        return {name: (float(low), float(high)) for name, (low, high) in data["ranges"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, digests: Mapping[str, str], table: Table) -> None:
    plain = {name: list(values) for name, values in table.items()}
    data = {"schema": SCHEMA, "digests": dict(digests), "sha256": _checksum(plain), "ranges": plain}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CalibrationError(
            f"the ranges cannot be kept in {path.parent}: {error.strerror or error}; {CHOOSE_CACHE}"
        ) from None


def _checksum(ranges: object) -> str:
    return hashlib.sha256(json.dumps(ranges, sort_keys=True).encode()).hexdigest()
