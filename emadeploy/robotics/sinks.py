"""Where maps go, by the names that people give: a folder, a recording, a viewer, a film."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics import film
from emadeploy.robotics.lens import Lens
from emadeploy.robotics.process import Sink
from emadeploy.robotics.recorder import Recorder
from emadeploy.robotics.save import FolderSaver
from emadeploy.robotics.viewer import Viewer

SCREEN = "screen"


def open_sinks(
    tasks: Sequence[TaskSpec],
    *,
    save: Path | None = None,
    view: str | None = None,
    intrinsics: str | None = None,
    say: Callable[[str], object] = lambda message: None,
) -> list[Sink]:
    """Return what writes into ``save``, a folder or a FILE.mcap, and what shows in ``view``.

    ``view``: 'screen' opens rerun's viewer, FILE.rrd is a file for it, FILE.mjpeg and FILE.mp4 are films.
    ``intrinsics``: see :class:`Lens`. ``say`` is told what cannot be made and why. Raises SpecError for other names,
    and whatever opening raises.
    """
    lens = Lens(intrinsics, say)
    sinks: list[Sink] = []
    try:
        if save is not None:
            sinks.append(Recorder(save, tasks, lens, say) if save.suffix == ".mcap" else FolderSaver(save, tasks))
        if view is not None:
            sinks.append(_view(view, tasks, lens))
    except BaseException:
        for sink in sinks:
            sink.close(whole=False)
        raise
    return sinks


def _view(view: str, tasks: Sequence[TaskSpec], lens: Lens) -> Sink:
    path = Path(view)
    suffix = path.suffix.lower()
    if view == SCREEN or suffix == ".rrd":
        return Viewer(None if view == SCREEN else path, tasks, lens)
    if suffix in (*film.MJPEG, *film.MP4):
        return film.Film(path, tasks)
    raise SpecError(f"--view {view!r} is unknown; known: {SCREEN}, FILE.rrd, FILE.mjpeg, FILE.mp4")
