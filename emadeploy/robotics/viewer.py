"""Everything about a frame in rerun (https://rerun.io): its viewer, or a file for it, over the time of capture.

    world                        the optical frame: x right, y down, z forward; names and colours of the classes
    world/camera                 the pinhole, where the intrinsics are known
    world/camera/image, depth, labels, normals, edge, ...
    world/points                 where the intrinsics are known, in the colours of the image
    timings/preprocess, ...      milliseconds

Time is that of day, or, for a video, the position in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import BackendMissing, DataError, first_line
from emadeploy.contract.geometry import Intrinsics, point_cloud
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import spread_palette
from emadeploy.robotics.drain import Drain
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.lens import Lens

_CAMERA = "world/camera"
#: Every second pixel both ways: what a viewer draws fluently.
_STEP = 2
_JPEG_QUALITY = 85
#: Stamps below this are positions in a recording, not times of day since 1970.
_A_DAY_IN_1973 = 1e8


class Viewer:
    """Logs frame after frame to rerun: into the file ``path``, or to a viewer that it opens.

    Raises BackendMissing where rerun is not installed, DataError where the viewer or the file cannot be opened.
    """

    def __init__(self, path: Path | None, tasks: Sequence[TaskSpec], lens: Lens) -> None:
        try:
            import rerun
        except ModuleNotFoundError:
            raise BackendMissing.of("--view", "rerun-sdk", "robotics") from None
        self._rerun: Any = rerun
        self._path, self._tasks, self._lens = path, tasks, lens
        self._partial = path and path.with_name(f"{path.name}.partial")
        self._log = rerun.RecordingStream("emadeploy")
        self._drain: Drain | None = None
        try:
            if self._partial is None:
                _open_viewer(self._log)
            else:
                # Once the disk refuses, a file that rerun itself writes goes on in silence and hangs at its end.
                self._drain = Drain(self._partial)
                self._log.save(self._drain.entrance)
        except Exception as error:  # rerun raises plain RuntimeErrors
            raise DataError(f"--view {path or 'screen'} cannot be opened: {first_line(error)}") from None
        self._log.log("world", rerun.ViewCoordinates.RDF, static=True)
        for task in tasks:
            if names := self._annotations(task):
                # Those of the labels also name the points.
                entity = "world" if task.kind == "semseg" else f"{_CAMERA}/{task.name}"
                self._log.log(entity, names, static=True)

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Log one frame and its maps; raises DataError where the disk refuses."""
        rerun, log = self._rerun, self._log.log
        nanoseconds = round(frame.stamp * 1e9) if frame.header is None else frame.header.stamp_ns
        if frame.stamp < _A_DAY_IN_1973:
            self._log.set_time("capture", duration=np.timedelta64(nanoseconds, "ns"))
        else:
            self._log.set_time("capture", timestamp=np.datetime64(nanoseconds, "ns"))
        intrinsics = self._lens.of(frame)
        if intrinsics is not None:
            log(_CAMERA, self._pinhole(intrinsics))
        log(f"{_CAMERA}/image", rerun.Image(frame.pixels).compress(jpeg_quality=_JPEG_QUALITY))
        for task in self._tasks:
            self._log_map(task, outputs)
        if intrinsics is not None and outputs.depth is not None:
            self._log_points(frame, outputs, intrinsics)
        for stage, milliseconds in outputs.timings.items():
            log(f"timings/{stage}", rerun.Scalars(milliseconds))
        self._check_disk()

    def close(self, *, whole: bool) -> None:
        """Hand over what is still on its way. A file gets its name where it is ``whole``; else it keeps '.partial', and
        can be viewed up to there.

        Raises DataError where the viewer has gone, or never came, and where the disk refuses.
        """
        try:
            self._log.flush()
        except Exception as error:  # rerun raises plain RuntimeErrors
            raise DataError(f"--view {self._path or 'screen'}: not everything was shown: {first_line(error)}") from None
        finally:
            self._log.disconnect()
            if self._drain is not None:
                self._drain.close()
        if whole and self._partial is not None and self._path is not None:
            self._check_disk()
            os.replace(self._partial, self._path)

    def _check_disk(self) -> None:
        if self._drain is not None and self._drain.error is not None:
            said = self._drain.error.strerror or self._drain.error
            raise DataError(f"{self._path} cannot be written: {said}; what fitted is in {self._partial}")

    def _annotations(self, task: TaskSpec) -> Any:
        if task.kind not in ("semseg", "human_parts"):
            return None
        names = task.class_names or tuple(f"class {index}" for index in range(task.channels))
        palette = task.palette or spread_palette(task.channels)
        classes = [(index, name, colour) for index, (name, colour) in enumerate(zip(names, palette, strict=True))]
        return self._rerun.AnnotationContext([*classes, (255, "unlabelled", (0, 0, 0))])

    def _pinhole(self, camera: Intrinsics) -> Any:
        matrix = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
        return self._rerun.Pinhole(image_from_camera=matrix, width=camera.width, height=camera.height)

    def _log_map(self, task: TaskSpec, outputs: TaskOutputs) -> None:
        rerun, decoded = self._rerun, outputs.maps[task.name]
        shown: Any
        if task.kind in ("semseg", "human_parts"):
            shown = rerun.SegmentationImage(decoded, opacity=0.5)
        elif task.kind == "depth" and task.unit == "metre":
            shown = rerun.DepthImage(decoded, meter=1.0)
        else:
            shown = rerun.Image(colourise(decoded, task)).compress(jpeg_quality=_JPEG_QUALITY)
        self._log.log(f"{_CAMERA}/{'labels' if task.kind == 'semseg' else task.name}", shown)

    def _log_points(self, frame: Frame, outputs: TaskOutputs, intrinsics: Intrinsics) -> None:
        assert outputs.depth is not None
        if next(task for task in self._tasks if task.kind == "depth").unit != "metre":
            return
        cloud = point_cloud(outputs.depth, intrinsics, frame=frame.pixels, labels=outputs.semseg, step=_STEP)
        points = self._rerun.Points3D(cloud.points, colors=cloud.colours, class_ids=cloud.labels)
        self._log.log("world/points", points)


def _open_viewer(log: Any) -> None:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DataError(
            "this machine has no display; write FILE.rrd, and open it with 'rerun FILE.rrd' where there is one"
        )
    # rerun looks for its viewer in PATH alone, where a virtual environment is only once it has been activated.
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([path, str(Path(sys.executable).parent)])
    try:
        log.spawn()
    finally:
        os.environ["PATH"] = path
