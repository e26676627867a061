"""The maps of frame after frame as a recording of ROS 2, in MCAP: same stamps and coordinate frames as the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from emadeploy import __version__
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.frame import Frame, Header
from emadeploy.robotics.lens import Lens
from emadeploy.robotics.mcap import McapWriter
from emadeploy.robotics.ros.maps import map_messages, topics_of
from emadeploy.robotics.ros.types import RosbagsTypes

#: Where the topics are: '/emadeploy/depth', '/emadeploy/labels', ...
NAMESPACE = "/emadeploy"
#: The coordinate frame of images that name none.
FRAME_ID = "camera_optical_frame"


class Recorder:
    """Writes what :mod:`emadeploy.robotics.ros.maps` makes of each frame; ``say`` is told what cannot be made.

    Raises DataError where ``path`` exists or the disk refuses; see :class:`McapWriter` for what is left then.
    """

    def __init__(
        self, path: Path, tasks: Sequence[TaskSpec], lens: Lens, say: Callable[[str], object] = lambda message: None
    ) -> None:
        self._types, self._tasks, self._lens = RosbagsTypes(), tasks, lens
        self._file = McapWriter(path, f"emadeploy {__version__}")
        self._topics: set[str] = set()
        if any(task.kind == "depth" and task.unit != "metre" for task in tasks):
            say("no depth and no points are recorded: the model's depth is inverse, ROS (REP-118) has it in metres")
        self._points = "points" in topics_of(tasks)

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Record the maps of one frame; raises DataError where the disk refuses."""
        header = frame.header
        if header is None:
            nanoseconds = round(frame.stamp * 1e9)
            header = Header(nanoseconds, FRAME_ID, nanoseconds)
        intrinsics = self._lens.of(frame) if self._points else None
        messages = map_messages(
            self._types,
            self._tasks,
            outputs,
            header,
            pixels=frame.pixels,
            camera=self._lens.info(frame),
            intrinsics=intrinsics,
        )
        for name, kind, message in messages:
            topic = f"{NAMESPACE}/{name}"
            if topic not in self._topics:
                self._file.add_topic(topic, kind, self._types.definition(kind))
                self._topics.add(topic)
            self._file.write(topic, header.received_ns, self._types.serialise(message))

    def close(self, *, whole: bool) -> None:
        """Give the recording its index and, where it is ``whole``, its name."""
        self._file.close(whole=whole)
