"""Frames of a raw data set into our layout: resumable, every file whole or not there.

OUTPUT/dataset.json                     what was made: the `DatasetRecord`
OUTPUT/{split}/names.txt                the raw name of frame 0, 1, ..., one a line
OUTPUT/{split}/image/{i}.npy            (H, W, 3) float32 in [0, 1], RGB
OUTPUT/{split}/label.../{i}.npy         (H, W) int16, -1 unlabelled
OUTPUT/{split}/depth/{i}.npy            (H, W, 1) float32, 0 unknown
OUTPUT/{split}/normal/{i}.npy           (H, W, 3) float32, (0, 0, 0) unknown
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.files import write_file
from emadeploy.data.record import NAME, DatasetRecord, read_record
from emadeploy.data.sample import IGNORE

Array = npt.NDArray[Any]

#: Called with the number of frames that are there and the number of all.
Progress = Callable[[int, int], None]


class RawData(Protocol):
    """A raw data set, as it will be written."""

    @property
    def record(self) -> DatasetRecord:
        """What will stand in ``dataset.json``."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of a frame's maps: 'image', 'label', ..."""

    def names(self, split: str) -> Sequence[str]:
        """Return what the raw data set calls its frames, in their order."""

    def frame(self, split: str, name: str) -> Mapping[str, Array]:
        """Return the maps of a frame, by folder, as they are stored; raises DataError naming the file."""


def write(raw: RawData, output: Path, splits: Sequence[str], progress: Progress | None = None) -> None:
    """Write all frames of ``splits`` below ``output``; those that are there already are kept.

    Raises DataError where ``output`` holds another data set, or the same of other raw frames, size or classes; where
    a raw file cannot be read, by its name; and where the disk refuses.
    """
    names = {split: list(raw.names(split)) for split in splits}
    _claim(output, raw.record, names)
    total = sum(map(len, names.values()))
    done = 0
    for split in splits:
        for index, name in enumerate(names[split]):
            paths = {folder: output / split / folder / f"{index}.npy" for folder in raw.folders}
            # The image is written last: a frame that has it has all.
            if not paths["image"].exists():
                maps = raw.frame(split, name)
                for folder in sorted(raw.folders, key=lambda each: each == "image"):
                    _save(paths[folder], maps[folder])
            done += 1
            if progress is not None:
                progress(done, total)


def as_stored_label(label_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Return labels as the layout has them: -1 where they are 255."""
    return np.where(label_HW == IGNORE, -1, label_HW.astype(np.int16)).astype(np.int16)


def _claim(output: Path, record: DatasetRecord, names: Mapping[str, Sequence[str]]) -> None:
    """Write down what is to be made, or refuse a folder that holds something else."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        occupied = any(output.iterdir())
    except OSError as error:
        raise DataError(f"folder {output} cannot be made: {error.strerror}") from None
    found = read_record(output, record.dataset)
    if found is None and occupied:
        raise DataError(f"{output} is not empty and has no {NAME}; choose another folder")
    if found is not None and found != record:
        told = [
            f"{key} {getattr(found, key)!r}, now {getattr(record, key)!r}"
            for key in ("classes", "size", "normals_frame", "notes")
            if getattr(found, key) != getattr(record, key)
        ]
        raise DataError(f"{output / NAME}: the folder was made with {'; '.join(told)}; choose another folder")
    write_file(output / NAME, record.to_json())
    for split, frames in names.items():
        path = output / split / "names.txt"
        text = "".join(f"{name}\n" for name in frames)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise DataError(f"{path} lists other frames than the raw data set has now; choose another folder")
        _make(path.parent)
        write_file(path, text)


def _save(path: Path, array: Array) -> None:
    _make(path.parent)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    write_file(path, file.getvalue())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"folder {folder} cannot be made: {error.strerror}") from None
