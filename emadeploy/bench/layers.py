"""Times by layer and by branch, for the rows of a report: each artifact in a process of its own.

``python -m emadeploy.bench.layers ARTIFACT THREADS DEVICE`` writes a line of json on stdout, the record of
:func:`summary`, or {"error": "DeviceError: ..."}; DEVICE is one of the engine or 'auto'.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.child import private_stdout
from emadeploy.bench.rows import Row
from emadeploy.contract.errors import EmadeployError, SpecError, one_line
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.contract.plain import as_mapping
from emadeploy.contract.preprocess import UInt8
from emadeploy.runtime.profile import RUNS, LayerTime, profile

COMMAND = (sys.executable, "-m", "emadeploy.bench.layers")
_NOTE = (
    f"Median of {RUNS} runs, as the engine itself tells them. Measuring layers slows it down: these are good for "
    "shares; the time of the whole is in the table."
)
#: Seconds that a profile may take: far more than any engine needs that is alive.
_PATIENCE = 600.0

Progress = Callable[[int, int], None]


def with_layers(
    rows: Sequence[Row], *, progress: Progress | None = None, command: Sequence[str] = COMMAND
) -> list[Row]:
    """Return ``rows``, those that were measured and have an artifact here with ``layers``: see :func:`summary`.

    Where an engine tells no times of layers, or its process fails, a note of its row says so.
    """
    found = []
    for index, row in enumerate(rows, start=1):
        found.append(_profiled(row, command) if _is_here(row) else row)
        if progress is not None:
            progress(index, len(rows))
    return found


def summary(layers: Sequence[LayerTime]) -> dict[str, Any]:
    """Return {'total_ms', 'runs', 'note', 'branches': [{'branch', 'ms', 'layers'}], 'layers': [{'name', ...}]}.

    Branches are in the order in which they ran first, layers those first that take most time.
    """
    times, counts = Counter[str](), Counter[str]()
    for layer in layers:
        times[layer.branch] += layer.milliseconds  # type: ignore[assignment]
        counts[layer.branch] += 1
    slowest = sorted(layers, key=lambda layer: -layer.milliseconds)
    return {
        "total_ms": sum(layer.milliseconds for layer in layers),
        "runs": RUNS,
        "note": _NOTE,
        "branches": [{"branch": name, "ms": times[name], "layers": count} for name, count in counts.items()],
        "layers": [
            {
                "name": one.name,
                "kind": one.kind,
                "branch": one.branch,
                "precision": one.precision,
                "ms": one.milliseconds,
            }
            for one in slowest
        ],
    }


def _is_here(row: Row) -> bool:
    made = row.measured and not row.estimate and row.target in TARGETS
    return made and row.artifact is not None and Path(row.artifact).is_dir()


def _profiled(row: Row, command: Sequence[str]) -> Row:
    device = str(row.mode.get("device") or "auto")
    argv = [*command, str(Path(str(row.artifact)).absolute()), str(row.threads or 0), device]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return _without(row, f"no answer within {_PATIENCE:.0f} s")
    try:
        answer = as_mapping("the answer", json.loads(done.stdout))
    except (ValueError, SpecError):
        return _without(row, f"its process ended with status {done.returncode} and no answer")
    return _without(row, answer["error"]) if "error" in answer else replace(row, layers=answer)


def _without(row: Row, why: str) -> Row:
    return replace(row, notes=(*row.notes, f"no times by layer: {why}"))


def main() -> None:
    """Serve the protocol above with the arguments of ``sys.argv``."""
    say = private_stdout()
    artifact, threads, device = sys.argv[1:]
    try:
        chosen = None if device == "auto" else device
        say(summary(profile(artifact, _frame(Path(artifact)), threads=int(threads) or None, device=chosen)))
    except EmadeployError as error:
        say({"error": f"{type(error).__name__}: {one_line(error)}"})
        sys.exit(1)


def _frame(artifact: Path) -> UInt8:
    """Return a frame of the size that the artifact takes: no engine is faster on one picture than on another."""
    manifest = Manifest.read(artifact)
    size = manifest.frame_size or manifest.model.input.size
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


if __name__ == "__main__":
    main()
