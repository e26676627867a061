"""Frames and truths in numpy files, one folder per map: ``image/0.npy, 1.npy, ...``, ``label/0.npy, ...`` and so on.

Nothing on disk is trusted: whatever a file holds besides what its folder promises is a DataError with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.data.sample import Sample

Array = npt.NDArray[Any]

IMAGE_FOLDER = "image"
_IGNORE = 255
# Room for what float16 and a resampling at the edge of the range leave.
_SLACK = 1e-2


@dataclass(frozen=True)
class NpyLayout:
    """Which folder holds the truth of which task, beside ``image/``.

    ``optional`` tasks may be absent, the others must be there. ``classes``: the number of classes of class maps.
    ``origin`` says in an error where such a tree comes from.
    """

    folders: Mapping[str, str]
    optional: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    origin: str = ""

    def __str__(self) -> str:
        names = [IMAGE_FOLDER] + [name for task, name in self.folders.items() if task not in self.optional]
        return f"{{{','.join(names)}}}/0.npy, 1.npy, ..." + (f" ({self.origin})" if self.origin else "")


class NpyFolder:
    """The samples below ``root``, in the numeric order of their files; ``limit`` keeps at most the first so many.

    Raises DataError where a folder is missing, a file name is not a number, or the folders do not hold the same
    frames. With a limit, what lies past it is not looked at.
    """

    def __init__(self, root: Path, layout: NpyLayout, *, description: str, limit: int | None = None) -> None:
        self.root, self.layout, self.description = root, layout, description
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; expected {layout} in it")
        frames = _frame_numbers(root / IMAGE_FOLDER, layout)
        self.frames = frames[:limit]
        self.tasks = tuple(
            task for task, name in layout.folders.items() if task not in layout.optional or (root / name).is_dir()
        )
        for task in self.tasks:
            self._check_frames(root / layout.folders[task], exact=limit is None)

    def _check_frames(self, folder: Path, *, exact: bool) -> None:
        here = _frame_numbers(folder, self.layout)
        image_folder = self.root / IMAGE_FOLDER
        for lacking, frames in ((folder, set(self.frames) - set(here)), (image_folder, set(here) - set(self.frames))):
            if frames and (exact or lacking is folder):
                raise DataError(
                    f"{lacking} lacks {min(frames)}.npy: {folder.name}/ has {len(here)} frames, "
                    f"{IMAGE_FOLDER}/ {len(self.frames)}; every frame needs all its maps"
                )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample. Raises DataError naming the file that is unreadable, or of an unfit shape or value."""
        name = f"{self.frames[index]}.npy"
        image = _read(self.root / IMAGE_FOLDER / name, _image)
        truth = {}
        for task in self.tasks:
            path = self.root / self.layout.folders[task] / name
            truth[task] = _read(path, _CONVERT[task], self.layout.classes.get(task, _IGNORE))
            if truth[task].shape[:2] != image.shape[:2]:
                raise DataError(f"{path} is {_size(truth[task])} pixels, its image {_size(image)}")
        return Sample(str(self.frames[index]), image, truth)


def _frame_numbers(folder: Path, layout: NpyLayout) -> list[int]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected {layout}")
    # Hidden files are somebody's half-written ones.
    stems = [path.stem for path in folder.glob("*.npy") if not path.name.startswith(".")]
    for stem in stems:
        if not (stem.isascii() and stem.isdigit() and str(int(stem)) == stem):
            raise DataError(f"{folder / stem}.npy: the name is not a frame number; expected {layout}")
    if not stems:
        raise DataError(f"{folder} holds no .npy file; expected {layout}")
    return sorted(int(stem) for stem in stems)


def _read(path: Path, convert: Callable[..., Array], *arguments: Any) -> Array:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a numpy array: {error}") from None
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
        raise DataError(f"{path} does not hold an array of numbers")
    try:
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            raise DataError("holds values that are not finite")
        return convert(stored, *arguments)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def _image(stored: Array) -> npt.NDArray[np.uint8]:
    _check_shape(stored, "(H, W, 3)", stored.ndim == 3 and stored.shape[2] == 3)
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind != "f":
        raise DataError(f"is an image of dtype {stored.dtype}; expected floats in [0, 1] or uint8")
    _check_range(stored, 0, 1)
    return np.rint(np.clip(stored.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _label(stored: Array, classes: int) -> npt.NDArray[np.uint8]:
    label_HW = _whole(_one_channel(stored))
    label_HW[label_HW == -1] = _IGNORE
    wrong = (label_HW != _IGNORE) & ((label_HW < 0) | (label_HW >= classes))
    if wrong.any():
        raise DataError(f"holds the class {label_HW[wrong][0]}; expected 0 to {classes - 1}, or -1 where unlabelled")
    return label_HW.astype(np.uint8)


def _depth(stored: Array, _: int) -> npt.NDArray[np.float32]:
    depth_HW = _one_channel(stored).astype(np.float32)
    if depth_HW.min() < 0:
        raise DataError(f"holds the depth {depth_HW.min():g}; expected values from 0 (unknown) up")
    return depth_HW


def _normals(stored: Array, _: int) -> npt.NDArray[np.float32]:
    _check_shape(stored, "(H, W, 3)", stored.ndim == 3 and stored.shape[2] == 3)
    _check_range(stored, -1, 1)
    return stored.astype(np.float32)


def _binary(stored: Array, _: int) -> npt.NDArray[np.uint8]:
    binary_HW = _whole(_one_channel(stored))
    wrong = ~np.isin(binary_HW, (0, 1, _IGNORE))
    if wrong.any():
        raise DataError(f"holds the value {binary_HW[wrong][0]}; expected 0, 1 or {_IGNORE}")
    return binary_HW.astype(np.uint8)


_CONVERT: dict[str, Callable[[Array, int], Array]] = {
    "semseg": _label,
    "human_parts": _label,
    "depth": _depth,
    "normals": _normals,
    "edge": _binary,
    "saliency": _binary,
}


def _one_channel(stored: Array) -> Array:
    fits = stored.ndim == 2 or (stored.ndim == 3 and stored.shape[2] == 1)
    _check_shape(stored, "(H, W) or (H, W, 1)", fits)
    return stored.reshape(stored.shape[:2])


def _whole(stored: Array) -> npt.NDArray[np.int64]:
    whole = stored.astype(np.int64)
    if (whole != stored).any():
        raise DataError(f"holds {stored[whole != stored][0]:g}; expected whole numbers")
    return whole


def _check_shape(stored: Array, wanted: str, fits: bool) -> None:
    if not fits or 0 in stored.shape:
        raise DataError(f"has shape {stored.shape}; expected {wanted}")


def _check_range(stored: Array, low: float, high: float) -> None:
    if stored.min() < low - _SLACK or stored.max() > high + _SLACK:
        raise DataError(f"holds values from {stored.min():g} to {stored.max():g}; expected {low} to {high}")


def _size(map_HW: Array) -> str:
    return f"{map_HW.shape[0]} x {map_HW.shape[1]}"
