"""NYUv2 as preprocessed for MTAN (Liu et al., CVPR 2019): 288 x 384, 13 classes, depth in metres, normals.

    DIR/{train,val}/{image,label,depth,normal}/{i}.npy

The release holds 795 and 654 frames. Its normals come from Eigen and Fergus (ICCV 2015), in axes of their own: the
frame 'dataset'. `emadeploy data convert` makes the same of the raw data set, with a ``dataset.json`` that says what
differs: classes, size, normals. The made rooms are written in the same layout, with ``edge/`` beside.
"""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import CLASS_SETS
from emadeploy.data.npy_folder import NpyFolder, NpyLayout
from emadeploy.data.record import read_record
from emadeploy.data.splits import split_folder

CLASSES = ("nyuv2-13", "nyuv2-40")
_FOLDERS = {"semseg": "label", "depth": "depth", "normals": "normal", "edge": "edge"}


def layout(classes: str = "nyuv2-13", normals_frame: str = "dataset") -> NpyLayout:
    """Return the layout with labels of the class set ``classes`` and normals in ``normals_frame``."""
    names, palette = CLASS_SETS[classes]
    tasks = (
        TaskSpec("semseg", class_names=names, palette=palette),
        TaskSpec("depth", unit="metre"),
        TaskSpec("normals", frame=normals_frame),
        TaskSpec("edge"),
    )
    return NpyLayout(_FOLDERS, tasks, optional=("edge",), origin="the preprocessed release of MTAN")


LAYOUT = layout()


def open_nyuv2(
    directory: Path,
    split: str = "val",
    *,
    limit: int | None = None,
    description: str | None = None,
    normals_frame: str | None = None,
) -> NpyFolder:
    """Return the samples of ``split`` ('train' or 'val') in ``directory``, at most the first ``limit``.

    ``normals_frame`` is that of the normals, by default what ``dataset.json`` says, else the release's own.
    Raises DataError where the layout is not ``{train,val}/{image,label,depth,normal}/{i}.npy``.
    """
    record = read_record(directory, "nyuv2")
    recorded = record.normals_frame if record else None
    files = layout(record.classes if record else "nyuv2-13", normals_frame or recorded or "dataset")
    root = split_folder(directory, split, files)
    return NpyFolder(root, files, description=description or f"nyuv2:{directory} {split}", limit=limit)
