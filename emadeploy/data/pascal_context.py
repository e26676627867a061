"""PASCAL-Context with five tasks, as ASTMT packed it (PASCAL_MT.tgz) and MTI-Net and ATRC read it.

    DIR/ImageSets/Context/{train,val}.txt     names, one a line: 4998 and 5105
    DIR/JPEGImages/NAME.jpg
    DIR/semseg/VOC12/NAME.png                 labels 0 to 20, 255 not judged; where there is none,
    DIR/semseg/pascal-context/NAME.png        the same, made of PASCAL-Context's
    DIR/human_parts/NAME.mat                  PASCAL-Part: `anno`, objects with masks and parts
    DIR/normals_distill/NAME.png              RGB = 255 (n + 1) / 2, of a network's normals, in axes of their own
    DIR/sal_distill/NAME.png                  grey; salient above half
    DIR/pascal-context/trainval/NAME.mat      `LabelMap` (459 classes): edges, and where normals are judged

Layout after data/pascal_context.py of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch and of
github.com/brdav/atrc. DIR is PASCAL_MT, or the folder that holds it. As there:

- an image without the parts of a person has no truth for human_parts (it is absent from the sample);
- edges are where the Laplacian of LabelMap is not 0, thinned to a pixel;
- normals are judged on the classes that NYUv2 knows too.

A task is offered where its folder is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import CLASS_SETS
from emadeploy.data.maps import check_size, naming, to_label
from emadeploy.data.optional import read_matlab, read_png
from emadeploy.data.pascal_tables import NORMALS_CLASSES, PART_CLASS, PERSON
from emadeploy.data.sample import Sample
from emadeploy.data.splits import check_split
from emadeploy.evaluate.thinning import thin
from emadeploy.pictures import read_picture

Array = npt.NDArray[Any]

_LABEL_MAPS = "pascal-context/trainval"
#: Task -> the folders it is made of; all must be there.
_FOLDERS = {
    "semseg": ("semseg",),
    "human_parts": ("human_parts",),
    "saliency": ("sal_distill",),
    "edge": (_LABEL_MAPS,),
    "normals": ("normals_distill", _LABEL_MAPS),
}


def _specs() -> tuple[TaskSpec, ...]:
    classes = {"semseg": "pascal-21", "human_parts": "pascal-parts-7"}
    sets = {task: CLASS_SETS[name] for task, name in classes.items()}
    return tuple(
        TaskSpec(task, class_names=sets[task][0], palette=sets[task][1])
        if task in sets
        else TaskSpec(task, frame="dataset" if task == "normals" else None)
        for task in _FOLDERS
    )


class PascalContext:
    """The samples that a list in ``ImageSets/Context`` names, in its order.

    Raises DataError where the list or all tasks are missing, or an image that is listed.
    """

    def __init__(self, directory: Path, split: str) -> None:
        check_split(split)
        self.root = directory / "PASCAL_MT" if (directory / "PASCAL_MT").is_dir() else directory
        self.description = f"pascal-context:{directory} {split}"
        self.names = _listed(self.root / "ImageSets" / "Context" / f"{split}.txt")
        self.specs = tuple(
            spec for spec in _specs() if all((self.root / folder).is_dir() for folder in _FOLDERS[spec.name])
        )
        if not self.specs:
            folders = ", ".join(sorted({folder for folders in _FOLDERS.values() for folder in folders}))
            raise DataError(f"{self.root} has no truth; expected at least one of {folders}")
        self.tasks = tuple(spec.name for spec in self.specs)
        missing = [name for name in self.names if not self._image(name).is_file()]
        if missing:
            raise DataError(f"{self._image(missing[0])} is not there, and {len(missing) - 1} others that {split} lists")

    def _image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; raises DataError naming the file that is missing, damaged or unfit."""
        name = self.names[index]
        image = read_picture(self._image(name))
        truth = {}
        for task in self.tasks:
            path, found = _READ[task](self.root, name)
            if found is not None:
                with naming(path):
                    check_size(found, image)
                truth[task] = found
        return Sample(name, image, truth)


def open_pascal_context(directory: Path, split: str = "val") -> PascalContext:
    """Return the samples of ``split`` ('train' or 'val'); raises what :class:`PascalContext` raises."""
    return PascalContext(directory, split)


def boundaries(labels_HW: Array) -> npt.NDArray[np.uint8]:
    """Return edges (H, W), 0 or 1: where the Laplacian of the labels is not 0, thinned to a pixel."""
    padded = np.pad(labels_HW.astype(np.int64), 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return thin(around != 4 * padded[1:-1, 1:-1]).astype(np.uint8)


def _semseg(root: Path, name: str) -> tuple[Path, Array]:
    places = [root / "semseg" / folder / f"{name}.png" for folder in ("VOC12", "pascal-context")]
    path = next((place for place in places if place.is_file()), places[1])
    stored = read_png(path)
    with naming(path):
        return path, to_label(stored, 21)


def _human_parts(root: Path, name: str) -> tuple[Path, Array | None]:
    path = root / "human_parts" / f"{name}.mat"
    stored = read_matlab(path, "anno")["anno"]
    try:
        objects = stored[0, 0]["objects"].ravel()
        people = [each for each in objects if int(each["class_ind"].item()) == PERSON and each["parts"].size]
        parts = [(str(part["part_name"].item()), part["mask"]) for each in people for part in each["parts"].ravel()]
        if not parts:
            return path, None
        label_HW = np.zeros(parts[0][1].shape, np.uint8)
        for part, mask in parts:
            label_HW[mask.astype(bool)] = PART_CLASS[part]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not an annotation of PASCAL-Part: {error}") from None
    return path, label_HW


def _saliency(root: Path, name: str) -> tuple[Path, Array]:
    path = root / "sal_distill" / f"{name}.png"
    stored = read_png(path)
    if stored.dtype != np.uint8 or stored.ndim != 2:
        raise DataError(f"{path} has shape {stored.shape} of {stored.dtype}; expected grey of 8 bits")
    return path, (stored > 127).astype(np.uint8)


def _edge(root: Path, name: str) -> tuple[Path, Array]:
    path, labels_HW = _label_map(root, name)
    return path, boundaries(labels_HW)


def _normals(root: Path, name: str) -> tuple[Path, Array]:
    path = root / "normals_distill" / f"{name}.png"
    stored = read_png(path)
    if stored.dtype != np.uint8 or stored.ndim != 3:
        raise DataError(f"{path} has shape {stored.shape} of {stored.dtype}; expected RGB of 8 bits")
    labels_path, labels_HW = _label_map(root, name)
    if labels_HW.shape != stored.shape[:2]:
        raise DataError(f"{path} is of another size than {labels_path}: {stored.shape[:2]} and {labels_HW.shape}")
    normals = stored.astype(np.float32) * np.float32(2 / 255) - 1
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)  # never 0: 127.5 is no integer
    normals[~np.isin(labels_HW, list(NORMALS_CLASSES.values()))] = 0
    return path, normals


def _label_map(root: Path, name: str) -> tuple[Path, Array]:
    path = root / _LABEL_MAPS / f"{name}.mat"
    labels_HW = read_matlab(path, "LabelMap")["LabelMap"]
    if labels_HW.ndim != 2 or min(labels_HW.shape) < 2 or labels_HW.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: LabelMap has shape {labels_HW.shape} of {labels_HW.dtype}; expected (H, W) of numbers"
        )
    return path, labels_HW


#: Task -> what reads its file and truth; None where this image has none.
_READ: dict[str, Callable[[Path, str], tuple[Path, Array | None]]] = {
    "semseg": _semseg,
    "human_parts": _human_parts,
    "saliency": _saliency,
    "edge": _edge,
    "normals": _normals,
}


def _listed(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"{path} is not there; unpack PASCAL_MT.tgz, and name the folder PASCAL_MT") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not names:
        raise DataError(f"{path} names no image")
    wrong = [name for name in names if "/" in name or "\\" in name or name.startswith(".")]
    if wrong:
        raise DataError(f"{path} holds {wrong[0]!r}, which is not the name of an image")
    return names
