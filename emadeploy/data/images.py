"""A folder of pictures without truth: to run on, to calibrate with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.data.sample import Sample

SUFFIXES = (".png", ".jpg", ".jpeg")


class ImageFolder:
    """The png and jpg files of a folder (not of folders in it); numbers in their names count: 9 before 10.

    Raises DataError where the folder is missing or holds none.
    """

    tasks: tuple[str, ...] = ()

    def __init__(self, directory: Path, *, limit: int | None = None) -> None:
        self.description = f"images:{directory}"
        if not directory.is_dir():
            raise DataError(f"{directory} is not a folder; expected one with pictures ({', '.join(SUFFIXES)})")
        paths = [p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        if not paths:
            raise DataError(f"{directory} holds no picture ({', '.join(SUFFIXES)})")
        self.paths = sorted(paths, key=_numbers_count)[:limit]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Return one picture, named by its file; raises DataError where it cannot be read."""
        path = self.paths[index]
        return Sample(path.name, read_image(path), {})


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return the picture at ``path`` as uint8 (H, W, 3) RGB, turned upright as its EXIF data says.

    Raises DataError where there is no picture, BackendMissing where OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise BackendMissing.of("reading pictures", "opencv", "robotics") from None
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    pixels_BGR = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels_BGR is None:
        raise DataError(f"{path} is not a picture that OpenCV can read")
    return np.ascontiguousarray(pixels_BGR[:, :, ::-1]).astype(np.uint8, copy=False)


def _numbers_count(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key in which runs of digits are numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return tuple((0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts)
