"""The models of a server, their metadata and what became of their frames.

An artifact is offered under the name of its folder: ``frame``, uint8 (H, W, 3) of any size, to decoded maps, as a call
of the Runtime. Without a frame size in the graph it is offered as NAME.raw too: ``image``, the network's own float32
input, to raw maps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.runtime import load
from emadeploy.serve.histogram import Histogram
from emadeploy.serve.tensors import NAMES, Array, Tensor
from emadeploy.serve.worker import Place, Worker


@dataclass
class Counts:
    """What became of the frames of a model. Nanoseconds: in the queue, and of each step in the engine's thread."""

    success: int = 0
    fail: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    last_ms: int = 0
    seconds: Histogram = field(default_factory=Histogram)

    def add(self, queued: int, took: int, timings: Mapping[str, float]) -> None:
        """Count a frame that waited and ran for so many nanoseconds, ``timings`` of its steps in milliseconds."""
        self.success += 1
        self.queue_ns += queued
        self.input_ns += int(1e6 * timings.get("preprocess", 0.0))
        self.infer_ns += int(1e6 * timings.get("inference", took / 1e6))
        self.output_ns += int(1e6 * timings.get("decode", 0.0))
        self.last_ms = int(1e3 * time.time())
        self.seconds.add(took / 1e9)

    def stats(self) -> dict[str, Any]:
        """Return the counts as Triton names them."""

        def part(ns: int) -> dict[str, int]:
            return {"count": self.success, "ns": ns}

        compute = {
            "compute_input": part(self.input_ns),
            "compute_infer": part(self.infer_ns),
            "compute_output": part(self.output_ns),
        }
        none = {"count": 0, "ns": 0}
        total = self.queue_ns + self.input_ns + self.infer_ns + self.output_ns
        return {
            "last_inference": self.last_ms,
            "inference_count": self.success,
            "execution_count": self.success,
            "inference_stats": {
                "success": part(total),
                "fail": {"count": self.fail, "ns": self.fail_ns},
                "queue": part(self.queue_ns),
                **compute,
                "cache_hit": none,
                "cache_miss": none,
            },
            "batch_stats": [{"batch_size": 1, **compute}] if self.success else [],
            "memory_usage": [],
        }


class Served:
    """A model as clients see it."""

    def __init__(self, name: str, worker: Worker, *, raw: bool) -> None:
        self.name, self.worker, self.raw, self.counts = name, worker, raw, Counts()
        manifest = worker.runtime.manifest
        size = manifest.frame_size or (-1, -1)
        tasks = worker.runtime.spec.tasks
        if raw:
            specs = {spec.name: spec for spec in manifest.outputs}
            self.input = Tensor("image", "FP32", (1, 3, *worker.runtime.spec.input.size))
            shapes = {task.name: tuple(specs[task.name].shape) for task in tasks}
            self.outputs = tuple(Tensor(name, "FP32", shape) for name, shape in shapes.items())
        else:
            self.input = Tensor("frame", "UINT8", (*size, 3))
            self.outputs = tuple(
                Tensor(t.name, NAMES[np.dtype(KINDS[t.kind].dtype).name], (*size, 3) if t.kind == "normals" else size)
                for t in tasks
            )

    def submit(self, place: Place, array: Array) -> Future[Mapping[str, Array]]:
        """Queue ``array`` in ``place`` and return the maps that will be."""
        submitted = time.perf_counter_ns()
        return place.submit(lambda: self._run(array, submitted))

    def _run(self, array: Array, submitted: int) -> Mapping[str, Array]:
        started = time.perf_counter_ns()
        runtime = self.worker.runtime
        timings: Mapping[str, float] = {}
        try:
            if self.raw:
                maps: Mapping[str, Array] = runtime.infer({self.input.name: array})
            else:
                result = runtime(array)
                maps, timings = result.maps, result.timings
        except BaseException:
            self.counts.fail += 1
            self.counts.fail_ns += time.perf_counter_ns() - started
            raise
        self.counts.add(started - submitted, time.perf_counter_ns() - started, timings)
        return maps

    def metadata(self) -> dict[str, Any]:
        """Return the model's metadata, with what each map means in the ``parameters`` of its output."""
        tasks = {task.name: task for task in self.worker.runtime.spec.tasks}
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": f"emadeploy_{self.worker.runtime.manifest.engine}",
            "inputs": [_plain(self.input)],
            "outputs": [{**_plain(out), "parameters": _meaning(tasks[out.name])} for out in self.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Return the configuration as Triton has it: no batches, one instance."""
        types = {"FP32": "TYPE_FP32", "UINT8": "TYPE_UINT8"}

        def plain(tensor: Tensor) -> dict[str, Any]:
            return {"name": tensor.name, "data_type": types[tensor.datatype], "dims": list(tensor.shape)}

        sides = {"input": [plain(self.input)], "output": [plain(output) for output in self.outputs]}
        return {"name": self.name, "backend": "emadeploy", "max_batch_size": 0, **sides}

    def stats(self) -> dict[str, Any]:
        """Return the statistics as Triton has them."""
        return {"name": self.name, "version": "1", **self.counts.stats()}


def served_names(artifacts: Iterable[Path]) -> dict[str, Path]:
    """Return name -> artifact: the names of their folders. Raises SpecError for names that collide or are none."""
    folders = [(path.resolve().name, path) for path in artifacts]
    for name, path in folders:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise SpecError(f"{path} cannot be a model's name in a URL; rename it to letters, digits, '.', '_' and '-'")
        if name == "stats":
            raise SpecError(f"{path} would be served at v2/models/stats, which is the statistics of all; rename it")
        if sum(other in (name, f"{name}.raw") for other, _ in folders) > 1:
            raise SpecError(f"two artifacts would be served as {name!r} ({path}); rename the folder of one")
    return dict(folders)


def open_models(artifacts: Iterable[Path], queue: int) -> dict[str, Served]:
    """Load the artifacts; ``queue`` requests of each may wait. Raises as :func:`served_names` and `runtime.load` do."""
    if queue < 1:
        raise SpecError(f"queue {queue} is not positive")
    folders = served_names(artifacts)
    models: dict[str, Served] = {}
    try:
        for name, path in folders.items():
            worker = Worker(load(path), queue + 1)
            models[name] = Served(name, worker, raw=False)
            if worker.runtime.manifest.frame_size is None:
                models[f"{name}.raw"] = Served(f"{name}.raw", worker, raw=True)
    except BaseException:
        close_models(models)
        raise
    return models


def close_models(models: Mapping[str, Served], seconds: float = 5.0) -> list[str]:
    """End every worker and free its engine; return the models whose engines did not stop within ``seconds`` in all."""
    deadline = time.monotonic() + seconds
    artifacts = [model for model in models.values() if not model.raw]
    return [model.name for model in artifacts if not model.worker.close(max(0.0, deadline - time.monotonic()))]


def _plain(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _meaning(task: TaskSpec) -> dict[str, Any]:
    fields = {"task": task.kind, "unit": task.unit, "direction": task.direction, "frame": task.frame}
    found: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if task.class_names:
        found["classes"] = list(task.class_names)
    return found
