"""A node without ROS: image messages in, messages of maps and diagnostics out. What is behind ``ros2_node``.

The newest image is worked on while the next is made ready; images that come meanwhile are dropped and counted, so that
answers are never older than about two inference times.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from emadeploy.contract.errors import SpecError, one_line
from emadeploy.contract.plain import one_of
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.health import Watch
from emadeploy.robotics.lens import Lens
from emadeploy.robotics.ros.camera import read_camera_info
from emadeploy.robotics.ros.diagnostics import Report, diagnostics_message
from emadeploy.robotics.ros.mailbox import Mailbox
from emadeploy.robotics.ros.maps import map_messages, topics_of
from emadeploy.robotics.ros.types import Types
from emadeploy.runtime import Runtime
from emadeploy.runtime.answers import Answer

log = logging.getLogger(__name__)

HEALTH = ("auto", "on", "off")


@dataclass(frozen=True)
class Outlet:
    """Where messages go: ``publish(topic, type, message)``, and whether ``anybody`` listens to a topic."""

    publish: Callable[[str, str, Any], None]
    anybody: Callable[[str], bool] = lambda topic: True


@dataclass
class _Period:
    """What happened since the last diagnostics."""

    begin: float = field(default_factory=time.perf_counter)
    latencies_ms: list[float] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    failed: str | None = None


class Perceiver:
    """Gives images to the runtime and hands on what comes out, from :meth:`start` to :meth:`close`.

    ``topics``: those of :func:`topics_of` that are published at all. ``rectified``: whether the images are. ``health``:
    'auto' watches the answers where the artifact keeps a range, 'on' insists, 'off' does not. ``now`` is the clock of
    the stamps in nanoseconds. Raises SpecError for other values, ArtifactError where health is 'on' without a range.
    """

    def __init__(
        self,
        perception: Runtime,
        types: Types,
        outlet: Outlet,
        *,
        topics: frozenset[str] | None = None,
        intrinsics: str | None = None,
        rectified: bool = False,
        health: str = "auto",
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        one_of("health", health, HEALTH)
        known = topics_of(perception.spec.tasks)
        if unknown := sorted((topics or set()) - known.keys()):
            raise SpecError(f"{perception.spec.name!r} cannot publish {', '.join(unknown)}; it can: {', '.join(known)}")
        self.topics = {name: kind for name, kind in known.items() if topics is None or name in topics}
        self._perception, self._types, self._outlet, self._now = perception, types, outlet, now
        self._rectified = rectified
        self._lens = Lens(intrinsics, log.warning)
        self._watch: Watch | None = None
        if health == "on" or (health == "auto" and perception.manifest.health is not None):
            self._watch = Watch(perception)
        self._mailbox = Mailbox(now)
        self._stream = perception.stream(self._mailbox, drop="oldest")
        self._thread = threading.Thread(target=self._work, name="emadeploy-perceiver", daemon=True)
        self._lock = threading.Lock()
        self._period = _Period()
        self._score: float | None = None
        self._fault: str | None = None

    def start(self) -> None:
        """Begin to work on images, in a thread of its own: ``publish`` is called there."""
        self._thread.start()

    def on_image(self, message: Any) -> None:
        """Take an Image or a CompressedImage; returns at once."""
        self._mailbox.put(message)

    def on_camera_info(self, message: Any) -> None:
        """Take the CameraInfo of the images that come after it."""
        self._mailbox.camera = read_camera_info(message, rectified=self._rectified)

    def close(self) -> None:
        """Finish the image in work and end. Closing twice is allowed."""
        self._mailbox.close()
        if self._thread.is_alive():
            self._thread.join()
        self._stream.close()

    def diagnostics(self) -> Any:
        """Return a DiagnosticArray about the time since the last one; see :mod:`emadeploy.robotics.ros.diagnostics`."""
        with self._lock:
            period, self._period = self._period, _Period()
        seconds = max(time.perf_counter() - period.begin, 1e-9)
        stats = self._stream.stats
        report = Report(
            name=f"emadeploy: {self._perception.spec.name}",
            target=self._perception.manifest.target,
            frames_per_second=len(period.latencies_ms) / seconds,
            latency_ms=_median(period.latencies_ms),
            age_ms=_median(period.ages_ms),
            received=self._mailbox.received,
            dropped=self._mailbox.dropped + stats.dropped,
            failed=stats.failed,
            health=self._score,
            warning=period.failed or (self._watch.warning if self._watch is not None else None),
            fault=self._fault,
        )
        return diagnostics_message(self._types, report, self._now())

    def _work(self) -> None:
        try:
            with closing(self._stream.answers()) as answers:
                for answer in answers:
                    self._take(answer)
        except Exception as error:
            self._fault = one_line(error)
            log.error("no more images are taken: %s", self._fault)

    def _take(self, answer: Answer) -> None:
        if answer.error is not None:
            said = one_line(answer.error)
            log.warning("an image is left out: %s", said)
            with self._lock:
                self._period.failed = said
            return
        frame, outputs = answer.frame, answer.result()
        assert isinstance(frame, Frame)
        assert frame.header is not None
        messages = map_messages(
            self._types,
            self._perception.spec.tasks,
            outputs,
            frame.header,
            pixels=frame.pixels,
            camera=self._lens.info(frame),
            intrinsics=self._lens.of(frame) if "points" in self.topics else None,
            wanted=frozenset(topic for topic in self.topics if self._outlet.anybody(topic)),
        )
        for topic, kind, message in messages:
            self._outlet.publish(topic, kind, message)
        now = self._now()
        if self._watch is not None:
            self._score = self._watch.look(outputs).score
        with self._lock:
            self._period.latencies_ms.append((now - frame.header.received_ns) / 1e6)
            self._period.ages_ms.append((now - frame.header.stamp_ns) / 1e6)


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
