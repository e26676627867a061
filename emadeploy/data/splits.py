"""The two splits of every data set, as folders of one directory."""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import DataError

SPLITS = ("train", "val")


def check_split(split: str) -> None:
    """Raise DataError unless ``split`` is one of SPLITS."""
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")


def split_folder(directory: Path, split: str, expected: object) -> Path:
    """Return the folder of ``split`` in ``directory``; raises DataError saying what was ``expected`` in it."""
    check_split(split)
    root = directory / split
    if not root.is_dir():
        what = "has no folder" if directory.is_dir() else "does not exist, so it has no folder"
        raise DataError(f"{directory} {what} {split}/; expected {split}/{expected}")
    return root
