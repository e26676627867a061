"""The maps of a frame as files: pictures for people, 16-bit depth for other tools, everything in one npz.

    NAME.semseg.png, NAME.depth.png, ...   colours, for people to look at
    NAME.depth_mm.png                      16-bit grey: millimetres, 0 = no answer, 65535 = 65.535 m or more;
                                           only where the task's unit is metre
    NAME.npz                               every map as it is, and ``stamp``

Each file appears complete or not at all; the npz comes last, so that a frame that has it has all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.preprocess import Float32
from emadeploy.contract.spec import TaskSpec
from emadeploy.robotics.frame import Frame


class FolderSaver:
    """Writes the maps of frame after frame into a ``folder``; see :func:`save_outputs`."""

    def __init__(self, folder: Path, tasks: Sequence[TaskSpec]) -> None:
        self._folder, self._tasks = folder, tasks

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Write the maps of one frame."""
        save_outputs(self._folder, frame.name, outputs, self._tasks)

    def close(self, *, whole: bool) -> None:
        """Nothing is left to do: every file is complete."""


def save_outputs(folder: Path, name: str, outputs: TaskOutputs, tasks: Iterable[TaskSpec]) -> list[Path]:
    """Write the maps of one frame into ``folder``, which is made where it is missing; returns the files' paths.

    Raises DataError where the disk refuses, BackendMissing where OpenCV is not installed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"folder {folder} cannot be made: {error.strerror}") from None
    written = []
    maps = outputs.maps
    for task in tasks:
        decoded = maps[task.name]
        written.append(_write_png(folder / f"{name}.{task.name}.png", colourise(decoded, task)))
        if task.unit == "metre":
            written.append(_write_png(folder / f"{name}.{task.name}_mm.png", to_millimetres(decoded)))
    # Not compressed: float maps shrink by a tenth, for several times the time.
    arrays: dict[str, Any] = {**maps, "stamp": np.float64(outputs.stamp)}
    written.append(_write(folder / f"{name}.npz", lambda file: np.savez(file, **arrays)))
    return written


def to_millimetres(depth_HW: Float32) -> npt.NDArray[np.uint16]:
    """Return depth in metres as uint16 millimetres: rounded, saturating at 65535; 0 (no answer) stays 0."""
    return np.rint(depth_HW.astype(np.float64) * 1000).clip(0, 65535).astype(np.uint16)


def _write_png(path: Path, pixels: npt.NDArray[Any]) -> Path:
    try:
        import cv2
    except ModuleNotFoundError:
        raise BackendMissing.of("writing pictures", "opencv", "robotics") from None
    data = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[:, :, ::-1])[1].tobytes()
    return _write(path, lambda file: file.write(data))


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> Path:
    """Write a file beside ``path``, then move it there."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            fill(file)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return path
