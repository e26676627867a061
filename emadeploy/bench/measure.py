"""Measure artifacts side by side: each in a process of its own, one call of each in turn.

A process of its own makes peak memory a property of the artifact. Taking turns makes the ratio of two artifacts hold on
a machine that is busy or throttles: what slows one round slows both.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.bench.rows import MEASURED, Row, Timings
from emadeploy.bench.stats import medians, paired_speedup, spread
from emadeploy.contract.errors import SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.machine import usable_cores

CHILD = (sys.executable, "-m", "emadeploy.bench.child")
ROUNDS = 11
_WARM_UP = 2
#: Seconds to wait for one answer of a child: far more than any engine needs that is alive.
_PATIENCE = 600.0

#: Called after each call with the number done and the number of all.
Progress = Callable[[int, int], None]


def measure(
    artifacts: Mapping[str, Path],
    frame_HW3: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
    child: Sequence[str] = CHILD,
) -> list[Row]:
    """Return a row for each of ``artifacts`` (name -> folder), in order, measured on ``frame_HW3``, uint8 RGB.

    Every artifact gets the same ``threads``, by default the cores of this process. An artifact that cannot be loaded,
    or whose process ends (killed, out of memory), has that as its ``status`` while the others go on; ratios are to
    the first. Raises SpecError for less than one round or thread, ArtifactError where there is no manifest.
    """
    if rounds < 1:
        raise SpecError(f"{rounds} rounds are not positive")
    if threads is not None and threads < 1:
        raise SpecError(f"threads {threads} is not positive")
    threads = threads or usable_cores()
    rows = {name: _unmeasured(name, path, threads) for name, path in artifacts.items()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emadeploy-bench-")))
        np.save(folder / "frame.npy", frame_HW3)
        children: dict[str, Child] = {}
        for name, path in artifacts.items():
            argv = [*child, str(path.absolute()), str(folder / "frame.npy"), str(threads)]
            children[name] = stack.enter_context(Child(argv, folder / f"{len(children)}.stderr"))
            # One after the other: a child that starts beside another would have half a machine.
            children[name].start()
        calls = _take_turns(list(children.values()), rounds, progress)
        for name, running in children.items():
            rows[name] = running.fill(rows[name], calls[running])
        return _with_speedups(list(rows.values()), list(calls.values()))


def _unmeasured(name: str, path: Path, threads: int) -> Row:
    manifest = Manifest.read(path)
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    return Row(name, manifest.target, "not measured", size, threads)


def _take_turns(children: Sequence[Child], rounds: int, progress: Progress | None) -> dict[Child, list[Timings]]:
    calls: dict[Child, list[Timings]] = {child: [] for child in children}
    done, total = 0, (rounds + _WARM_UP) * len(children)
    for index in range(rounds + _WARM_UP):
        # Back and forth: whoever always comes second would always find the other's data in the caches.
        for child in children[:: 1 if index % 2 == 0 else -1]:
            timings = child.ask("run")
            if timings is not None and index >= _WARM_UP:
                calls[child].append(timings)
            done += 1
            if progress is not None:
                progress(done, total)
    return calls


def _with_speedups(rows: Sequence[Row], calls: Sequence[Sequence[Timings]]) -> list[Row]:
    if not rows or not rows[0].measured:
        return list(rows)
    speedups = []
    for row, own in zip(rows, calls, strict=True):
        if row.measured:
            ratio = {key: paired_speedup([c[key] for c in calls[0]], [c[key] for c in own]) for key in _COMPARED}
            row = replace(row, speedup=ratio["inference"], speedup_end_to_end=ratio["total"])
        speedups.append(row)
    return speedups


_COMPARED = ("inference", "total")


class Child:
    """A process of :mod:`emadeploy.bench.child` (or of ``argv``, which speaks like it). Use it in a ``with`` block.

    What goes wrong in it never raises here: :attr:`trouble` says it, and every answer from then on is ``None``.
    """

    def __init__(self, argv: Sequence[str], stderr: Path) -> None:
        self.trouble: str | None = None
        self.cold_start_s = 0.0
        self._facts: dict[str, Any] = {}
        self._stderr = stderr
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def start(self) -> None:
        """Start the process and wait until it has loaded its artifact and answered a first frame."""
        started = time.perf_counter()
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
            )
        self._facts = self._answer() or {}
        self.cold_start_s = time.perf_counter() - started

    def ask(self, word: str) -> dict[str, Any] | None:
        """Send a line and return the answer; ``None`` where there is none, and then :attr:`trouble` says why."""
        if self.trouble is not None or self._process is None or self._process.stdin is None:
            return None
        # A process that died before it was asked: its stdout, read next, says so.
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n".encode())
        return self._answer()

    def fill(self, row: Row, calls: Sequence[Timings]) -> Row:
        """Return ``row`` with what this process measured in ``calls``, or with what went wrong as its status."""
        memory = self.ask("memory")
        if self.trouble is not None or memory is None or not calls:
            return replace(row, status=self.trouble or "not measured")
        end_to_end = spread([call["total"] for call in calls])
        return replace(
            row,
            status=MEASURED,
            latency_ms=spread([call["inference"] for call in calls]),
            end_to_end_ms=end_to_end,
            stages_ms=medians([{stage: ms for stage, ms in call.items() if stage != "total"} for call in calls]),
            fps=1e3 / end_to_end["p50"],
            peak_memory_mb=memory["peak_memory_mb"],
            baseline_memory_mb=self._facts.get("baseline_memory_mb"),
            cold_start_s=self.cold_start_s,
            engine=self._facts.get("ready", {}),
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any] | None:
        line = self._line()
        if line is None:
            return None
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.trouble = f"failed: its process answered {line[:80]!r}"
            return None
        if "error" in answer:
            self.trouble = f"failed: {answer['error']}"
            return None
        return answer

    def _line(self) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + _PATIENCE
        while b"\n" not in self._unread:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._process.kill()
                self.trouble = f"failed: no answer within {_PATIENCE:.0f} s"
                return None
            chunk = os.read(descriptor, 65536)
            if not chunk:
                self.trouble = self._obituary()
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _obituary(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "failed: its process was killed (SIGKILL), as the kernel does where memory runs out"
        if code < 0:
            return f"failed: its process was ended by {signal.Signals(-code).name}"
        with suppress(OSError):
            lines = self._stderr.read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "")
            return f"failed: its process exited with status {code}: {last.strip()[:200]}".removesuffix(": ")
        return f"failed: its process exited with status {code}"
