"""The models of a server: one worker thread per artifact, and a bounded number of requests that wait for it.

An artifact is offered under the name of its folder: ``frame``, uint8 (H, W, 3) of any size, to decoded maps, as a call
of the Runtime. Without a frame size in the graph it is offered as NAME.raw too: ``image``, the network's own float32
input, to raw maps.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.runtime import Runtime, load
from emadeploy.serve.faults import Fault
from emadeploy.serve.tensors import NAMES, Array, Tensor


class Worker:
    """The thread of one artifact. ``places`` requests are in it at a time, read, waiting or running."""

    def __init__(self, runtime: Runtime, places: int) -> None:
        self.runtime = runtime
        self._free = threading.BoundedSemaphore(places)
        self._pool = ThreadPoolExecutor(1, "emadeploy-serve")

    def enter(self) -> None:
        """Take a place; Fault 503 where all are taken."""
        if not self._free.acquire(blocking=False):
            raise Fault(503, "the queue of this model is full; try again later", Retry_After="1")

    def leave(self) -> None:
        """Give the place back, where :meth:`submit` was not reached."""
        self._free.release()

    def submit(self, work: Callable[[Array], Any], array: Array) -> Future[Any]:
        """Queue the work of a place that was taken; the place is free when it is done or cancelled."""
        held = [array]
        future = self._pool.submit(lambda: work(held[0]))

        def done(_: Future[Any]) -> None:
            held.clear()  # a cancelled job stays in the pool's queue, its picture must not
            self._free.release()

        future.add_done_callback(done)
        return future

    def close(self) -> None:
        """End the thread after the work in flight, and free the engine."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.runtime.close()


@dataclass
class Counts:
    """What became of the requests of a model; nanoseconds are those of the engine's thread."""

    success: int = 0
    fail: int = 0
    success_ns: int = 0
    last_ms: int = 0


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

    def run(self, array: Array) -> Mapping[str, Array]:
        """Return the maps of ``array``, in the worker's thread; counts the request."""
        started = time.perf_counter_ns()
        try:
            maps = self._maps(array)
        except BaseException:
            self.counts.fail += 1
            raise
        self.counts.success += 1
        self.counts.success_ns += time.perf_counter_ns() - started
        self.counts.last_ms = int(time.time() * 1e3)
        return maps

    def _maps(self, array: Array) -> Mapping[str, Array]:
        runtime = self.worker.runtime
        if not self.raw:
            return runtime(array).maps
        answers = runtime._infer({"image": array})
        for name, answer in answers.items():
            if not np.isfinite(answer).all():
                raise ArtifactError(f"output {name!r} holds values that are not finite: the engine overflowed")
        return answers

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

    def stats(self) -> dict[str, Any]:
        """Return the statistics in the form that Triton gives them."""
        counts = self.counts
        inference = {
            "success": {"count": counts.success, "ns": counts.success_ns},
            "fail": {"count": counts.fail, "ns": 0},
        }
        own = {"name": self.name, "version": "1", "last_inference": counts.last_ms}
        return {
            **own,
            "inference_count": counts.success,
            "execution_count": counts.success,
            "inference_stats": inference,
        }


def open_models(artifacts: Iterable[Path], queue: int) -> dict[str, Served]:
    """Load the artifacts; ``queue`` requests of each may wait. Raises SpecError for names that collide."""
    if queue < 1:
        raise SpecError(f"queue {queue} is not positive")
    folders = [(path.resolve().name, path) for path in artifacts]
    for name, path in folders:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise SpecError(f"{path} cannot be a model's name in a URL; rename it to letters, digits, '.', '_' and '-'")
        if sum(other in (name, f"{name}.raw") for other, _ in folders) > 1:
            raise SpecError(f"two artifacts would be served as {name!r} ({path}); rename the folder of one")
    models: dict[str, Served] = {}
    try:
        for name, path in folders:
            worker = Worker(load(path), queue + 1)
            models[name] = Served(name, worker, raw=False)
            if worker.runtime.manifest.frame_size is None:
                models[f"{name}.raw"] = Served(f"{name}.raw", worker, raw=True)
    except BaseException:
        close_models(models)
        raise
    return models


def close_models(models: Mapping[str, Served]) -> None:
    """End every worker and free its engine."""
    for worker in {id(model.worker): model.worker for model in models.values()}.values():
        worker.close()


def _plain(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _meaning(task: TaskSpec) -> dict[str, Any]:
    fields = {"task": task.kind, "unit": task.unit, "direction": task.direction, "frame": task.frame}
    found: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if task.class_names:
        found["classes"] = list(task.class_names)
    return found
