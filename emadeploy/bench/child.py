"""The process that is measured: it loads one artifact, runs it when told to, and does nothing else.

``python -m emadeploy.bench.child ARTIFACT FRAME.npy THREADS`` says on stdout, a line of json each:

    {"ready": {engine, version, device, ...}, "baseline_memory_mb": ...}      loaded and warmed up
    {"preprocess": ms, "inference": ms, "decode": ms, "total": ms}            for each line "run" on stdin
    {"peak_memory_mb": ...}                                                   for "memory"
    {"error": "ArtifactError: ..."}                                           where it cannot; then it exits

It ends with its stdin, so that it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import EmadeployError
from emadeploy.contract.manifest import Manifest

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve the protocol above with the arguments of ``sys.argv``."""
    say = _private_stdout()
    _be_first_to_go()
    artifact, frame_path, threads = sys.argv[1:]
    try:
        _serve(Path(artifact), np.load(frame_path), int(threads), say)
    except EmadeployError as error:
        say({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _serve(artifact: Path, frame_HW3: Any, threads: int, say: Say) -> None:
    from emadeploy.runtime import load
    from emadeploy.runtime.backends import opener

    opener(Manifest.read(artifact).engine)  # imports the engine's library
    baseline = peak_memory_mb()
    with load(artifact, threads=threads) as perception:
        say({"ready": perception.describe(), "baseline_memory_mb": baseline})
        for line in sys.stdin:
            if line.strip() == "memory":
                say({"peak_memory_mb": peak_memory_mb()})
                continue
            start = time.perf_counter()
            result = perception(frame_HW3)
            say({**result.timings, "total": 1e3 * (time.perf_counter() - start)})


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


def _private_stdout() -> Say:
    """Return a function that writes json lines to stdout, which from now on nothing else in this process reaches."""
    # Engines print to descriptor 1 from C++; it would break the protocol.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    return say


def _be_first_to_go() -> None:
    """Where memory runs out, let the kernel end this process, and not the one that will report it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
