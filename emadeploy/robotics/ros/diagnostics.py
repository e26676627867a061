"""How a node is, as ``diagnostic_msgs/DiagnosticArray`` has it.

OK while images are answered; WARN where health leaves the range of the known frames or an image could not be
used; STALE where no image was answered since the last report; ERROR where the node has stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from emadeploy.robotics.frame import Header
from emadeploy.robotics.ros.types import Types, header_message

_OK, _WARN, _ERROR, _STALE = 0, 1, 2, 3


@dataclass(frozen=True)
class Report:
    """What is told. Milliseconds: the medians since the last report, ``None`` where there was no image.

    ``latency_ms``: from an image's arrival to its maps; ``age_ms``: from its stamp to its maps. The counts are from the
    start: images ``received``, ``dropped`` for newer ones, ``failed``. ``health``: the score of the last image.
    """

    name: str
    target: str
    frames_per_second: float
    latency_ms: float | None
    age_ms: float | None
    received: int
    dropped: int
    failed: int
    health: float | None
    warning: str | None
    fault: str | None

    @property
    def status(self) -> tuple[int, str]:
        """The level and the message."""
        if self.fault is not None:
            return _ERROR, self.fault
        if self.latency_ms is None and self.warning is None:
            return _STALE, "no image" if self.received == 0 else "no image since the last report"
        if self.warning is not None:
            return _WARN, self.warning
        return _OK, f"{self.frames_per_second:.1f} frames per second, {self.latency_ms:.0f} ms"

    @property
    def values(self) -> dict[str, str]:
        """Key -> value, as the message has them."""
        known = {"target": self.target, "frames_per_second": f"{self.frames_per_second:.2f}"}
        for key in ("latency_ms", "age_ms"):
            value = getattr(self, key)
            known[key] = "" if value is None else f"{value:.1f}"
        known |= {key: str(getattr(self, key)) for key in ("received", "dropped", "failed")}
        told = self.health is not None and not math.isnan(self.health)
        return {**known, "health": f"{self.health:.3f}" if told else ""}


def diagnostics_message(types: Types, report: Report, now_ns: int) -> Any:
    """Return a DiagnosticArray of one status."""
    level, message = report.status
    values = [types.make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in report.values.items()]
    status = types.make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=types.byte(level),
        name=report.name,
        message=message,
        hardware_id=report.target,
        values=values,
    )
    header = header_message(types, Header(now_ns, "", now_ns))
    return types.make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[status])
