"""NYUv2 as preprocessed for MTAN (Liu et al., CVPR 2019): 288 x 384, 13 classes, depth in metres, normals.

The made rooms are written in the same layout, with ``edge/`` beside.
"""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import DataError
from emadeploy.contract.tasks import NYUV2_13
from emadeploy.data.npy_folder import NpyFolder, NpyLayout

SPLITS = ("train", "val")
LAYOUT = NpyLayout(
    folders={"semseg": "label", "depth": "depth", "normals": "normal", "edge": "edge"},
    optional=("edge",),
    classes={"semseg": len(NYUV2_13)},
    origin="the preprocessed release of MTAN",
)


def open_nyuv2(
    directory: Path, split: str = "val", *, limit: int | None = None, description: str | None = None
) -> NpyFolder:
    """Return the samples of ``split`` ('train' or 'val') in ``directory``, at most the first ``limit``.

    Raises DataError where the layout is not ``{train,val}/{image,label,depth,normal}/{i}.npy``.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    root = directory / split
    if not root.is_dir():
        what = "has no folder" if directory.is_dir() else "does not exist, so it has no folder"
        raise DataError(f"{directory} {what} {split}/; expected {split}/{LAYOUT}")
    return NpyFolder(root, LAYOUT, description=description or f"nyuv2:{directory} {split}", limit=limit)
