"""The process that compiles: it may be killed when memory runs out, and must take nobody with it.

    python -m emadeploy.runtime.trt.child

An order comes as a line of json on stdin, which stays open: its end means that the parent is gone. Answers are lines of
json on stdout: 'progress' again and again, then 'done' or 'error'.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from emadeploy.contract.errors import EmadeployError
from emadeploy.runtime.blobs import BlobCache
from emadeploy.runtime.trt.layers import EngineLayer, from_inspector, from_log
from emadeploy.runtime.trt.library import Library, load_library
from emadeploy.runtime.trt.values import BuildSettings

#: Timings of kernels, kept between builds: what takes most of the time of a build is measuring them.
TIMINGS = "tensorrt-timings"
_SECONDS_BETWEEN = 0.1


def main() -> None:
    """Carry out the order on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with: it ends this process
    with suppress(OSError):
        # When memory runs out, Linux is to take this process, not the robot's others.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # What native code prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _answer(answers, done=compile_plan(order, answers))
    except EmadeployError as error:
        _answer(answers, error={"kind": type(error).__name__, "message": str(error)})


def compile_plan(order: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    """Compile the graph of ``order`` into its file 'plan'; return seconds and layers. Raises any EmadeployError."""
    started = time.perf_counter()
    library = load_library(order["engine"])
    settings = BuildSettings(**{**order["settings"], "compute_capabilities": tuple(order["compute_capabilities"])})
    plan = _build(library, order, settings, answers)
    Path(order["plan"]).write_bytes(plan)
    layers = _layers(library, plan, settings)
    found = [dataclasses.asdict(layer) for layer in layers]
    return {"seconds": round(time.perf_counter() - started, 1), "layers": found}


def _build(library: Library, order: dict[str, Any], settings: BuildSettings, answers: TextIO) -> bytes:
    """Return the plan; the graph and the builder, which take most of the memory, are gone when it does."""
    cache, key = BlobCache(TIMINGS), order["timings"]
    parsed = library.parse(Path(order["graph"]).read_bytes(), order["graph"])
    config = library.config(parsed, settings, cache.read(key) or b"")
    library.monitor(config, _Progress(answers).report)
    plan = library.build_serialized_network(parsed, config)
    if timings := library.timings(config):
        cache.write(key, timings)
    return plan


def _layers(library: Library, plan: bytes, settings: BuildSettings) -> list[EngineLayer]:
    """Return the engine's layers; of one that was built for other GPUs, as the builder listed them."""
    if settings.compute_capabilities:
        return from_log(library.logger.layers)
    return from_inspector(library.layers(library.deserialize(plan, settings.dla)))


class _Progress:
    """One number for phases inside of phases, told not more often than anyone can read."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._inside: dict[str | None, tuple[str, int, int]] = {}  # phase -> the one inside of it, its steps
        self._told = 0.0

    def report(self, phase: str, parent: str | None, done: int, total: int) -> None:
        self._inside[parent] = (phase, done, total)
        self._inside.pop(phase, None)  # what went on inside of it is over
        if time.monotonic() - self._told >= _SECONDS_BETWEEN:
            self._told = time.monotonic()
            _answer(self._answers, progress=[phase, round(1000 * self._share(None)), 1000])

    def _share(self, phase: str | None) -> float:
        if phase not in self._inside:
            return 0.0
        inside, done, total = self._inside[phase]
        return min(1.0, (done + self._share(inside)) / max(total, 1))


def _answer(answers: TextIO, **answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _end_with_parent() -> None:
    # Not through sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
