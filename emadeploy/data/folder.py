"""A folder of a user's own data, described by its ``dataset.yml`` (:mod:`emadeploy.data.folder_spec`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.plain import spec_path
from emadeploy.data.folder_spec import NAME, FolderTask, parse_folder_spec
from emadeploy.data.maps import check_size, load_npy, naming, to_binary, to_depth, to_label, to_normals
from emadeploy.data.optional import read_png, read_yaml
from emadeploy.data.sample import Sample
from emadeploy.data.splits import check_split
from emadeploy.pictures import SUFFIXES, read_picture

Array = npt.NDArray[Any]

_TRUTHS = (".npy", ".png")


class UserFolder:
    """The samples of one split, in the order of its list, or of their names where the split is a folder.

    Raises DataError where the split, an image that is listed, or every truth of a task is missing, and where two
    files have the name of one; SpecError for a ``dataset.yml`` that makes no sense.
    """

    def __init__(self, directory: Path, split: str) -> None:
        check_split(split)
        self.description = f"folder:{directory} {split}"
        path = directory / NAME
        data = read_yaml(path)
        with spec_path(str(path)):
            self._spec = parse_folder_spec(data)
            if split not in self._spec.splits:
                raise SpecError(f"splits has no {split}, only {', '.join(self._spec.splits)}")
        self.specs = tuple(task.spec for task in self._spec.tasks)
        self.tasks = tuple(spec.name for spec in self.specs)
        self._listings: dict[tuple[Path, tuple[str, ...]], dict[str, list[str]]] = {}
        self._open(directory, split)

    def _open(self, directory: Path, split: str) -> None:
        place = self._spec.splits[split]
        listed = place.endswith(".txt")
        root = directory if listed else directory / place
        images = root / self._spec.image
        if listed:
            self.names = _listed(directory / place)
        else:
            self.names = sorted(self._listing(images, SUFFIXES))
            if not self.names:
                raise DataError(f"{images} holds no picture ({' '.join(SUFFIXES)}), or is no folder")
        self._images = [self._image(images, name) for name in self.names]
        self._truths = {
            task.spec.name: [self._find(root / task.files, name, _TRUTHS) for name in self.names]
            for task in self._spec.tasks
        }
        for task in self._spec.tasks:
            if not any(self._truths[task.spec.name]):
                raise DataError(
                    f"{root / task.files} holds no NAME.npy or NAME.png for any image of {split}, such as "
                    f"{self.names[0]!r}: look at tasks.{task.spec.name}.files in {directory / NAME}"
                )

    def _image(self, folder: Path, name: str) -> Path:
        path = self._find(folder, name, SUFFIXES)
        if path is None:
            raise DataError(f"{folder} holds no picture {name!r} ({' '.join(SUFFIXES)}); lists name them without these")
        return path

    def _find(self, folder: Path, name: str, suffixes: tuple[str, ...]) -> Path | None:
        """Return the file of ``name`` in ``folder``, if it is there; raises DataError for two."""
        path = folder / name
        files = self._listing(path.parent, suffixes).get(path.name, [])
        if len(files) > 1:
            raise DataError(f"{path.parent} holds {' and '.join(sorted(files))}; expected one file of that name")
        return path.parent / files[0] if files else None

    def _listing(self, folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
        """Return the files in ``folder`` with one of the ``suffixes``, by their names without; none where it is not."""
        key = folder, suffixes
        if key not in self._listings:
            found: dict[str, list[str]] = {}
            for path in folder.iterdir() if folder.is_dir() else ():
                if not path.name.startswith(".") and path.suffix.lower() in suffixes:
                    found.setdefault(path.stem, []).append(path.name)
            self._listings[key] = found
        return self._listings[key]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without the truths that are not there; raises DataError naming the unfit file."""
        image = read_picture(self._images[index])
        truth = {}
        for task in self._spec.tasks:
            path = self._truths[task.spec.name][index]
            if path is None:
                continue
            stored = load_npy(path) if path.suffix.lower() == ".npy" else read_png(path)
            with naming(path):
                truth[task.spec.name] = read_truth(stored, task)
                check_size(truth[task.spec.name], image)
        return Sample(self.names[index], image, truth)


def open_folder(directory: Path, split: str = "val") -> UserFolder:
    """Return the samples of ``split`` ('train' or 'val'); raises what :class:`UserFolder` raises."""
    return UserFolder(directory, split)


def read_truth(stored: Array, task: FolderTask) -> Array:
    """Return the map of a sample for the numbers ``stored`` in a file of ``task``; raises DataError."""
    if task.spec.name == "depth":
        return _depth(stored, task)
    if task.spec.name == "normals":
        return _normals(stored)
    if task.spec.name in ("edge", "saliency"):
        if stored.dtype == bool:
            return to_binary(stored)
        # As classes: 0, the positive one, what is ignored; everything else is refused.
        wrong = ~np.isin(stored, (0, task.positive, *task.ignore))
        if wrong.any():
            known = ", ".join(map(str, (0, task.positive, *task.ignore)))
            raise DataError(f"holds the value {stored[wrong][0]}; expected {known}")
        return to_binary(np.where(np.isin(stored, task.ignore), 255, stored == task.positive))
    return to_label(stored, task.spec.channels, task.ignore)


def _depth(stored: Array, task: FolderTask) -> Array:
    if stored.dtype == bool:
        raise DataError("holds true and false; expected depths")
    values = stored.astype(np.float64)
    unknown = np.isin(values, [value for value in task.invalid if not np.isnan(value)])
    if any(np.isnan(value) for value in task.invalid):
        unknown |= np.isnan(values)
    return to_depth(np.where(unknown, 0.0, values) * task.scale)


def _normals(stored: Array) -> Array:
    """Floats as they are; the integers of a PNG span -1 to 1, and (0, 0, 0) of it is unknown, as in floats."""
    if stored.dtype.kind == "u":
        unknown = ~stored.any(axis=-1, keepdims=True)
        largest = np.iinfo(stored.dtype).max
        stored = np.where(unknown, 0.0, stored.astype(np.float64) * (2 / largest) - 1)
    normals = to_normals(stored)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    # Shorter than this it has no direction to speak of: the middle of the range in a PNG.
    return np.where(length > 0.1, normals / np.maximum(length, 1e-6), 0).astype(np.float32)


def _listed(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise DataError(f"{path} is not there; {NAME} names it as a list of images, one a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    names = [name for name in names if name]
    if not names:
        raise DataError(f"{path} names no image")
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise DataError(f"{path} holds {name!r}, which leads out of the folder of the images")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path} lists {name!r} {count} times")
    return names
