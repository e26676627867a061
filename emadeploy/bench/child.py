"""The process that is measured: it loads one artifact, runs it when told to, and does nothing else.

``python -m emadeploy.bench.child ARTIFACT FRAME.npy THREADS DEVICE``, the last one of the engine's devices or 'auto',
says on stdout, a line of json each:

    {"ready": {engine, version, device, ...}, "baseline_memory_mb": ..., "load_s": ...}   loaded and warmed up
    {"calls": [{"preprocess": ms, "inference": ms, "decode": ms, "total": ms}, ...]}      for "run N" on stdin
    {"fps": ..., "frames": ...}                                       for "stream S": a stream of S seconds at least
    {"peak_memory_mb": ..., "device_memory_mb": ..., "copies_ms": {"copy_in": ms, ...}}   for "memory"; {}: no copies
    {"error": "ArtifactError: ..."}                                   where it cannot; then it exits

It ends with its stdin, so that it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emadeploy.contract.errors import EmadeployError
from emadeploy.contract.manifest import Manifest

Say = Callable[[dict[str, Any]], None]
#: Frames that a stream is timed over at least, after those that fill its stages.
_STREAMED, _FILLING = 8, 3


class Network(Protocol):
    """What is measured: a loaded network, whatever it runs on."""

    def call(self) -> dict[str, float]:
        """Answer the frame once; return the milliseconds by stage, without 'total'."""

    def stream(self, frames: Iterator[Any]) -> Generator[Any, None, None]:
        """Answer ``frames`` as fast as it can, in order."""

    @property
    def frame(self) -> Any:
        """The frame, uint8 (H, W, 3) RGB."""

    def memory(self) -> dict[str, Any]:
        """Return what it holds on its device: 'device_memory_mb', ``None`` on a CPU.

        And 'copies_ms', where copies are in the stage 'inference': what of it they take.
        """


def main() -> None:
    """Serve the protocol above with the arguments of ``sys.argv``."""
    say = private_stdout()
    be_first_to_go()
    artifact, frame_path, threads, device = sys.argv[1:]
    with told_errors(say):
        _serve_artifact(Path(artifact), np.load(frame_path), int(threads), None if device == "auto" else device, say)


def _serve_artifact(artifact: Path, frame_HW3: Any, threads: int, device: str | None, say: Say) -> None:
    from emadeploy.runtime import load
    from emadeploy.runtime.backends import opener

    manifest = Manifest.read(artifact)
    opener(manifest.engine)  # imports the engine's library
    baseline = peak_memory_mb()
    gpu = DeviceMemory(manifest.engine, device)
    started = time.perf_counter()
    with load(artifact, threads=threads, device=device) as perception:
        facts = {"load_s": time.perf_counter() - started, "baseline_memory_mb": baseline}
        say({"ready": perception.describe(), **facts})
        serve(_Artifact(perception, frame_HW3, gpu), say)


class _Artifact:
    """A loaded artifact and its frame."""

    def __init__(self, perception: Any, frame_HW3: Any, gpu: DeviceMemory) -> None:
        self._perception, self.frame, self._gpu = perception, frame_HW3, gpu

    def call(self) -> dict[str, float]:
        return dict(self._perception(self.frame).timings)

    def stream(self, frames: Iterator[Any]) -> Generator[Any, None, None]:
        yield from self._perception.stream(frames)

    def memory(self) -> dict[str, Any]:
        return {"device_memory_mb": self._gpu.taken_mb(), "copies_ms": self._perception.copies()}


def serve(network: Network, say: Say) -> None:
    """Answer the lines of stdin, to its end."""
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "run":
            say({"calls": [_timed(network) for _ in range(int(number))]})
        elif word == "stream":
            say(_streamed(network, float(number)))
        elif word == "memory":
            say({"peak_memory_mb": peak_memory_mb(), **network.memory()})
        else:
            say({"error": f"{line.strip()!r} is not a word of the protocol"})


def _timed(network: Network) -> dict[str, float]:
    start = time.perf_counter()
    timings = network.call()
    return {**timings, "total": 1e3 * (time.perf_counter() - start)}


def _streamed(network: Network, seconds: float) -> dict[str, float]:
    """Return the frames per second of a stream once its stages are full."""
    finished = False

    def frames() -> Iterator[Any]:
        while not finished:
            yield network.frame

    start, now, count = 0.0, 0.0, -_FILLING
    with closing(network.stream(frames())) as results:
        for _ in results:
            count += 1
            now = time.perf_counter()
            if count == 0:
                start = now
            if count >= _STREAMED and now - start >= seconds:
                finished = True
                break
    return {"fps": count / (now - start), "frames": count}


class DeviceMemory:
    """What the memory of an NVIDIA GPU has lost since this was made, also to other programs where they take any."""

    def __init__(self, engine: str, device: str | None) -> None:
        self._gpu: Any = None
        if engine.startswith("tensorrt"):
            from emadeploy.runtime.trt.memory import open_gpu

            _, _, index = (device or "gpu").partition(":")
            self._gpu = open_gpu(int(index) if index.isdigit() else 0)
        self._before = self._free()

    def taken_mb(self) -> float | None:
        """Return MB; ``None`` where the engine runs on a CPU."""
        now = self._free()
        return None if now is None or self._before is None else (self._before - now) / 1e6

    def _free(self) -> int | None:
        return None if self._gpu is None else self._gpu.free_bytes()


def peak_memory_mb() -> float:
    """Return the most main memory that this process ever held, in MB (10^6 bytes)."""
    # Not getrusage where it can be helped: its maximum survives exec, and starts at that of the parent.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def private_stdout() -> Say:
    """Return a function that writes json lines to stdout, which from now on nothing else in this process reaches."""
    # Engines print to descriptor 1 from C++; it would break the protocol.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    return say


@contextmanager
def told_errors(say: Say) -> Iterator[None]:
    """Tell an EmadeployError of the block in the protocol, and exit with status 1."""
    try:
        yield
    except EmadeployError as error:
        say({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def be_first_to_go() -> None:
    """Where memory runs out, let the kernel end this process, and not the one that will report it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
