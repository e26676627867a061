"""A process that is measured, seen from the one that measures it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from emadeploy.bench.rows import Timings

#: Seconds to wait for an answer: the first may be that of an engine that is compiled on its device.
_PATIENCE_START, _PATIENCE = 3600.0, 600.0


class Child:
    """A process of :mod:`emadeploy.bench.child` (or of ``argv``, which speaks like it). Use it in a ``with`` block.

    What goes wrong in it never raises here: :attr:`trouble` says it, and every answer from then on is ``None``. With
    ``trouble`` given nothing is started at all. ``facts`` is what the process said of itself when it was ready.
    """

    def __init__(self, argv: Sequence[str], stderr: Path, trouble: str | None = None) -> None:
        self.trouble = trouble
        self.cold_start_s: float | None = None
        self.facts: dict[str, Any] = {}
        self._stderr = stderr
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    @property
    def pid(self) -> int | None:
        """The number of the process; ``None`` where none was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and wait until it has loaded its artifact and answered a first frame."""
        if self.trouble is not None:
            return
        started = time.perf_counter()
        with self._stderr.open("wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
                )
            except OSError as error:
                self.trouble = f"failed: {self._argv[0]} cannot be started: {error.strerror}"
                return
        self.facts = self._answer(_PATIENCE_START) or {}
        self.cold_start_s = time.perf_counter() - started

    def run(self, calls: int) -> list[Timings] | None:
        """Let it answer its frame ``calls`` times, one after the other; return the milliseconds by stage of each."""
        answer = self.ask(f"run {calls}")
        if answer is None:
            return None
        timings: Any = answer.get("calls")
        if not isinstance(timings, list) or len(timings) != calls:
            self.trouble = f"failed: its process did not answer {calls} calls"
            return None
        return timings

    def ask(self, line: str) -> dict[str, Any] | None:
        """Send a line and return the answer; ``None`` where there is none, and then :attr:`trouble` says why."""
        if self.trouble is not None or self._process is None or self._process.stdin is None:
            return None
        # A process that died before it was asked: its stdout, read next, says so.
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
        return self._answer(_PATIENCE)

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

    def _answer(self, patience: float) -> dict[str, Any] | None:
        line = self._line(patience)
        if line is None:
            return None
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.trouble = f"failed: its process answered {line[:80]!r}"
            return None
        if "error" in answer:
            self.trouble = f"failed: {answer['error']}"
            return None
        return answer

    def _line(self, patience: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + patience
        while b"\n" not in self._unread:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._process.kill()
                self.trouble = f"failed: no answer within {patience:.0f} s"
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
