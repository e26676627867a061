"""Cityscapes as preprocessed for MTAN (Liu et al., CVPR 2019): 128 x 256, 19 or 7 classes, inverse depth.

    DIR/{train,val}/{image,depth}/{i}.npy      2975 and 500 frames
    DIR/{train,val}/label_19/{i}.npy           the official train ids, -1 where unlabelled: `cityscapes:DIR`
    DIR/{train,val}/label_7/{i}.npy            the seven categories, -1 where unlabelled: `cityscapes-7:DIR`

**Inverse depth** is the disparity of the two cameras, scaled: larger is nearer, 0 is unknown. The release's largest
value is 0.4922 where the raw PNG's is 32257 (github.com/lorenmt/mtan, issue 25), so one unit is 65536 of a PNG's
steps, or 256 pixels of disparity at the full width of 2048. Its author's code for that is lost; to four digits it is
what :data:`PIXELS_PER_UNIT` makes. Metres are ``baseline * focal length / (PIXELS_PER_UNIT * value)``, which with the
usual 0.209313 m and 2262.52 pixels is ``1.85 / value``; the cameras of the cities differ by some percent.
"""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import CLASS_SETS
from emadeploy.data.npy_folder import NpyFolder, NpyLayout
from emadeploy.data.record import read_record
from emadeploy.data.splits import split_folder

#: Pixels of disparity, at the full width of 2048, in one unit of the stored inverse depth.
PIXELS_PER_UNIT = 256

#: Number of classes -> class set.
CLASSES = {19: "cityscapes-19", 7: "cityscapes-7"}


def layout(classes: int = 19) -> NpyLayout:
    """Return the layout with the labels of 19 or 7 ``classes``."""
    names, palette = CLASS_SETS[CLASSES[classes]]
    tasks = (
        TaskSpec("semseg", class_names=names, palette=palette),
        TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"),
    )
    folders = {"semseg": f"label_{classes}", "depth": "depth"}
    return NpyLayout(folders, tasks, origin="the preprocessed release of MTAN")


def open_cityscapes(directory: Path, split: str = "val", *, classes: int = 19) -> NpyFolder:
    """Return the samples of ``split`` ('train' or 'val') in ``directory``, with labels of 19 or 7 ``classes``.

    Raises DataError where the layout is not ``{train,val}/{image,label_19,depth}/{i}.npy``, saying so where there
    are the labels of the other set.
    """
    kind = "cityscapes" if classes == 19 else f"cityscapes-{classes}"
    read_record(directory, "cityscapes")
    files = layout(classes)
    root = split_folder(directory, split, files)
    for other in CLASSES:
        if not (root / f"label_{classes}").is_dir() and (root / f"label_{other}").is_dir():
            wanted = "cityscapes" if other == 19 else f"cityscapes-{other}"
            raise DataError(
                f"{root} has label_{other}/ and no label_{classes}/; its {other} classes are {wanted}:{directory}"
            )
    return NpyFolder(root, files, description=f"{kind}:{directory} {split}")
