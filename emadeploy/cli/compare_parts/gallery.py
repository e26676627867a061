"""The frames on which two networks differ most, task by task: kept as pictures while the data goes by, then written.

semseg-1-12.png, semseg-2-7.png, ...   TASK-RANK-FRAME: see `contact` for what is on them
index.json                             what each shows, with numbers and units; it comes last
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emadeploy.cli.compare_parts.contact import LABELS, MEASURES, contact, opencv, scale_of
from emadeploy.contract.errors import DataError
from emadeploy.contract.files import write_file
from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.compare import ComparedFrame
from emadeploy.evaluate.records import write_record

INDEX = "index.json"


@dataclass(frozen=True, eq=False)
class _Kept:
    frame: str
    mean: float  # of the difference map
    scale: float  # what is drawn white
    picture: UInt8


class Gallery:
    """The ``count`` frames of each task whose mean difference is largest, among those with any difference at all.

    Only pictures are kept, so memory grows with ``count`` and not with the data. ``names`` are the paths of A and B.
    """

    def __init__(self, count: int, tasks: Sequence[TaskSpec], names: tuple[Path, Path]) -> None:
        self.count, self.tasks, self.names = count, tuple(tasks), names
        self._kept: dict[str, list[_Kept]] = {task.name: [] for task in tasks}

    def look(self, frame: ComparedFrame) -> None:
        """Keep the pictures of this frame for the tasks in which it is among those that differ most so far."""
        for task in self.tasks:
            kept, difference_HW = self._kept[task.name], frame.differences[task.name]
            mean = float(difference_HW.mean())
            if not mean or (len(kept) == self.count and mean <= kept[-1].mean):
                continue
            picture = contact(frame, task, self.names)
            kept.append(_Kept(frame.sample.name, mean, scale_of(difference_HW, task), picture))
            # Stable: of two that differ as much, the earlier frame stays ahead.
            kept.sort(key=lambda one: -one.mean)
            del kept[self.count :]

    def write(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Write the pictures, then the index, into ``folder``; ``record`` is that of the comparison.

        Raises DataError where the disk refuses.
        """
        entries = []
        for task in self.tasks:
            for rank, kept in enumerate(self._kept[task.name], start=1):
                name = f"{task.name}-{rank}-{_file_stem(kept.frame)}.png"
                _write_png(folder / name, kept.picture)
                entries.append({"file": name, "task": task.name, "rank": rank, **_described(kept, task)})
        index = {key: record[key] for key in ("schema", "a", "b", "data", "frames")}
        write_record(folder / INDEX, {**index, "order": "largest mean difference first", "pictures": entries})


def make_place(folder: Path) -> None:
    """Make ``folder`` for the pictures, before the work whose result they are.

    Raises DataError where it holds something already (pictures of two comparisons must not stand side by side) or
    cannot be made, BackendMissing where OpenCV is not installed.
    """
    opencv()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sum(1 for _ in folder.iterdir())
    except OSError as error:
        raise DataError(f"folder {folder} cannot be made: {error.strerror}") from None
    if held:
        raise DataError(f"folder {folder} holds {held} files already; name a new folder for the pictures, or empty it")


def _described(kept: _Kept, task: TaskSpec) -> dict[str, Any]:
    measure = MEASURES[task.kind]
    described: dict[str, Any] = {
        "frame": kept.frame,
        "difference": {"what": measure.what, "mean": measure.factor * kept.mean, "unit": measure.unit},
    }
    if task.kind in LABELS:
        return {**described, "heat": "white: another class"}
    return {**described, "heat": {"black": 0.0, "white": measure.factor * kept.scale, "unit": measure.unit}}


def _file_stem(frame: str) -> str:
    # Frames of a folder are named by their files: 'kitchen 3.jpg'.
    return re.sub(r"[^0-9A-Za-z_-]+", "-", Path(frame).stem).strip("-")[:60] or "frame"


def _write_png(path: Path, picture: UInt8) -> None:
    cv2 = opencv()
    data = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    write_file(path, data)
