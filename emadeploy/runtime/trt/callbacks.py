"""What TensorRT calls back while it works: a logger, which keeps what matters, a monitor of a build, a profiler."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

#: Called with (phase, phase that it is part of or None, steps done, steps in all).
Monitor = Callable[[str, str | None, int, int], None]

_KEPT_ERRORS = 4
_LAYERS = "Layers:"


def make_logger(module: Any) -> Any:
    """Return a logger for ``module``: its ``errors`` are the last ones, its ``layers`` what a build says of them."""

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 asks for this very call
            self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
            self.layers = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(" ".join(msg.split()))
            elif msg.startswith(_LAYERS):
                self.layers += msg.removeprefix(_LAYERS)

    return Logger()


def make_monitor(module: Any, report: Monitor) -> Any:
    """Return a progress monitor for ``module``, 10 or newer, that calls ``report``."""

    class ProgressMonitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps = self._phases.get(phase_name, (None, step + 1))
            report(phase_name, parent, step + 1, steps)
            return True  # false would end the build

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return ProgressMonitor()


def make_profiler(module: Any) -> Any:
    """Return a profiler for ``module``: its ``times`` are the milliseconds of each run, by the name of the layer."""

    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    return Profiler()
