"""A watch over the answers of a stream: a warning when they fit together worse than on known frames."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.geometry import Intrinsics
from emadeploy.contract.health import Health, HealthRange, health
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.robotics.frame import Frame
from emadeploy.runtime import Runtime

log = logging.getLogger(__name__)

#: Frames whose median is judged: one odd view is no illness.
FRAMES = 15


class Watch:
    """Looks at result after result. ``warning`` says what is wrong now, ``None`` while all is well.

    >>> watch = Watch(perception)                                           # doctest: +SKIP
    >>> for result in perception.stream("camera:0"):                        # doctest: +SKIP
    ...     watch.look(result)
    ...     if watch.warning: slow_down()

    The median of the last :data:`FRAMES` is judged by the range in the artifact's manifest. ``warn`` is told of a
    warning once, when it comes; that it went is logged. Raises ArtifactError where the artifact keeps no range.
    """

    def __init__(
        self,
        perception: Runtime,
        intrinsics: Intrinsics | None = None,
        warn: Callable[[str], object] = log.warning,
    ) -> None:
        if perception.manifest.health is None:
            raise ArtifactError(
                f"the artifact of {perception.spec.name!r} keeps no range of health: its model has no maps to compare, "
                "its weights are random, or it was exported without frames; export it again with --calib-data"
            )
        self.range = HealthRange.from_dict(perception.manifest.health)
        self.warning: str | None = None
        self._warn = warn
        self._tasks = perception.spec.tasks
        # A range without intrinsics is compared without them: the angles are of that view.
        self._intrinsics = intrinsics if self.range.intrinsics else None
        self._seen: deque[Health] = deque(maxlen=FRAMES)

    def look(self, outputs: TaskOutputs) -> Health:
        """Return the health of this frame, and judge the last few."""
        found = health(outputs, self._tasks, self._intrinsics)
        assert found is not None, "an artifact with a range has maps to compare"
        self._seen.append(found)
        if len(self._seen) >= FRAMES // 2:
            self._judge(self.range.warning(self._median()))
        return found

    def _median(self) -> Health:
        parts = []
        for name in ("score", "angle", "borders", "distance"):
            values = [value for value in (getattr(health, name) for health in self._seen) if not math.isnan(value)]
            # Told for fewer than half of the frames, it is not told.
            parts.append(statistics.median(values) if 2 * len(values) > len(self._seen) else math.nan)
        return Health(*parts)

    def _judge(self, warning: str | None) -> None:
        if warning and not self.warning:
            self._warn(f"health: {warning}")
        elif self.warning and not warning:
            log.info("health: back in the range of the known frames")
        self.warning = warning


class Checkup:
    """A watch among the sinks of a source: ``scores`` are those of its frames, ``warnings`` name where each came.

    ``say`` is told every warning at once. Raises ArtifactError where the artifact keeps no range.
    """

    def __init__(self, perception: Runtime, say: Callable[[str], object] = lambda message: None) -> None:
        self._watch = Watch(perception, warn=self._note)
        self._say, self._name = say, ""
        self.scores: list[float] = []
        self.warnings: list[str] = []

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Look at the maps of one frame."""
        self._name = frame.name
        score = self._watch.look(outputs).score
        if not math.isnan(score):
            self.scores.append(score)

    def close(self, *, whole: bool) -> None:
        """Nothing is left to do."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``median`` score of the frames, ``low`` and ``high`` of known frames, and the ``warnings``."""
        usual = self._watch.range.parts["score"]
        median = statistics.median(self.scores) if self.scores else None
        return {"median": median, "low": usual["low"], "high": usual["high"], "warnings": self.warnings}

    def _note(self, warning: str) -> None:
        self.warnings.append(f"frame {self._name}: {warning}")
        self._say(self.warnings[-1])
