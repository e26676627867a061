"""A watch over the answers of a stream: a warning when they fit together worse than on known frames."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque

from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.geometry import Intrinsics
from emadeploy.contract.health import Health, HealthRange, health
from emadeploy.contract.outputs import TaskOutputs
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

    The median of the last :data:`FRAMES` is judged by the range in the artifact's manifest. A warning is logged when
    it comes and when it goes. Raises ArtifactError where the artifact keeps no range.
    """

    def __init__(self, perception: Runtime, intrinsics: Intrinsics | None = None) -> None:
        if perception.manifest.health is None:
            raise ArtifactError(
                f"the artifact of {perception.spec.name!r} keeps no range of health: its model has no maps to compare, "
                "its weights are random, or it was exported without frames; export it again with --calib-data"
            )
        self.range = HealthRange.from_dict(perception.manifest.health)
        self.warning: str | None = None
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
            log.warning("health: %s", warning)
        elif self.warning and not warning:
            log.info("health: back in the range of the known frames")
        self.warning = warning
