"""The process of several artifacts that answer each frame one after the other: N networks in the place of one.

``python -m emadeploy.bench.chain ARTIFACT ... FRAME.npy THREADS DEVICE`` speaks as :mod:`emadeploy.bench.child`. All of
them are loaded in one process, as in a program that needs all their maps of every frame: its memory is what they take
together, and none is loaded twice. Each prepares the frame for itself, as it would alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.child import (
    DeviceMemory,
    Say,
    be_first_to_go,
    peak_memory_mb,
    private_stdout,
    serve,
    told_errors,
)
from emadeploy.contract.manifest import Manifest


def main() -> None:
    """Serve the protocol with the arguments of ``sys.argv``."""
    say = private_stdout()
    be_first_to_go()
    *artifacts, frame, threads, device = sys.argv[1:]
    with told_errors(say):
        place = None if device == "auto" else device
        _serve([Path(artifact) for artifact in artifacts], np.load(frame), int(threads), place, say)


def _serve(artifacts: Sequence[Path], frame_HW3: Any, threads: int, device: str | None, say: Say) -> None:
    from emadeploy.runtime import load
    from emadeploy.runtime.backends import opener

    engines = {Manifest.read(artifact).engine for artifact in artifacts}
    for engine in engines:
        opener(engine)  # imports the engine's library
    baseline = peak_memory_mb()
    gpu = DeviceMemory(next((engine for engine in engines if engine.startswith("tensorrt")), "cpu"), device)
    started = time.perf_counter()
    with ExitStack() as stack:
        loaded = [stack.enter_context(load(artifact, threads=threads, device=device)) for artifact in artifacts]
        facts = {"load_s": time.perf_counter() - started, "baseline_memory_mb": baseline}
        # Of one network, where several run: the target is that of all.
        say({"ready": {**loaded[0].describe(), "networks": len(loaded)}, **facts})
        serve(_Chain(loaded, frame_HW3, gpu), say)


class _Chain:
    """Loaded artifacts and their frame."""

    def __init__(self, networks: Sequence[Any], frame_HW3: Any, gpu: DeviceMemory) -> None:
        self._networks, self.frame, self._gpu = networks, frame_HW3, gpu

    def call(self) -> dict[str, float]:
        return self._answer(self.frame)

    def stream(self, frames: Iterator[Any]) -> Generator[Any, None, None]:
        # A stream of each would have all of them run at once.
        for frame_HW3 in frames:
            yield self._answer(frame_HW3)

    def memory(self) -> dict[str, float | None]:
        return {"device_memory_mb": self._gpu.taken_mb()}

    def _answer(self, frame_HW3: Any) -> dict[str, float]:
        total: dict[str, float] = {}
        for network in self._networks:
            for stage, milliseconds in network(frame_HW3).timings.items():
                total[stage] = total.get(stage, 0.0) + milliseconds
        return total


if __name__ == "__main__":
    main()
