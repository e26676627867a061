"""Readings of a Jetson while something runs: from the kernel's files in a thread, or from a `tegrastats` of our own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from emadeploy.bench.jetson.power import PowerRecord, Span, power_record
from emadeploy.bench.jetson.sensors import Sample, Sensors
from emadeploy.bench.jetson.tegrastats import parse_line

#: Seconds between two readings. The power monitor itself averages over some 0.1 s.
INTERVAL = 0.1
_SECONDS_TO_END = 5.0


class PowerWatch:
    """Reads power, temperatures and throttling in the background; use it in a ``with`` block around what is measured.

        with PowerWatch() as watch:
            watch.idle(2.0)
            start = time.perf_counter()
            ...                                              # run the frames
            record = watch.over([(start, time.perf_counter())], frames=100)

    Rails come from the files of the kernel under ``root``, and from `tegrastats` where those cannot be read (as in some
    containers). Where neither is there, the record says so; nothing here raises because a sensor is gone.
    """

    def __init__(
        self, root: Path = Path("/"), *, interval: float = INTERVAL, tegrastats: str | None = "tegrastats"
    ) -> None:
        self._sensors = Sensors(root)
        self._interval = interval
        self._command = tegrastats
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._samples: list[Sample] = []
        self._idle: list[Sample] = []

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All readings so far, in order of time."""
        return tuple(self._samples)

    def idle(self, seconds: float = 2.0) -> None:
        """Wait, and take the readings of this time as what the device draws when nothing runs."""
        start = time.perf_counter()
        time.sleep(seconds)
        self._idle = [sample for sample in self.samples if sample.seconds >= start]

    def over(self, spans: Sequence[Span], frames: int) -> PowerRecord:
        """Return what was drawn in ``spans`` (seconds of `time.perf_counter`), in which ``frames`` ran."""
        return power_record(self.samples, spans, frames, idle=self._idle)

    def __enter__(self) -> PowerWatch:
        work = self._read_files
        if not self._sensors.rails and self._command is not None:
            with suppress(OSError):
                argv = [self._command, "--interval", str(max(1, round(1e3 * self._interval)))]
                self._process = subprocess.Popen(
                    argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
                )
                work = self._read_lines
        self._ending.clear()
        self._thread = threading.Thread(target=work, name="emadeploy-power", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None:
            self._thread.join()
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = self._thread = None

    def _read_files(self) -> None:
        while not self._ending.is_set():
            self._samples.append(self._sensors.read(time.perf_counter()))
            self._ending.wait(self._interval)

    def _read_lines(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now = time.perf_counter()
            said, read = parse_line(line).sample(now), self._sensors.read(now)
            # What the files tell of clocks and throttling, tegrastats does not.
            self._samples.append(
                Sample(
                    now,
                    said.rails_w,
                    said.temperatures_c or read.temperatures_c,
                    said.gpu_mhz or read.gpu_mhz,
                    read.gpu_max_mhz,
                    read.events,
                    read.alerts,
                )
            )
