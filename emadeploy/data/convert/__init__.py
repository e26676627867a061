"""Raw data sets, as their makers publish them, into the preprocessed layout that is trained on."""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.convert.cityscapes import RawCityscapes
from emadeploy.data.convert.nyuv2 import MAT_NAME, RawNyuv2
from emadeploy.data.convert.writing import Progress, write
from emadeploy.data.record import DatasetRecord
from emadeploy.data.splits import SPLITS

#: Numbers of classes that each raw data set can be converted to; the first where none is asked for.
CLASSES = {"cityscapes": (19, 7), "nyuv2": (13, 40)}
#: Height and width of the recipes.
SIZES = {"cityscapes": (128, 256), "nyuv2": (288, 384)}


def kind_of(raw: Path) -> str:
    """Return 'nyuv2' or 'cityscapes', whichever ``raw`` is; raises DataError where it is neither."""
    if raw.suffix == ".mat" or (raw / MAT_NAME).is_file():
        return "nyuv2"
    if RawCityscapes.root_of(raw, "leftImg8bit") is not None:
        return "cityscapes"
    what = "holds neither" if raw.is_dir() else "does not exist, so there is neither"
    raise DataError(f"{raw} {what} {MAT_NAME} (NYUv2) nor leftImg8bit/ (Cityscapes)")


def convert(
    raw: Path,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    splits: Path | None = None,
    progress: Progress | None = None,
) -> DatasetRecord:
    """Write ``raw`` as ``{train,val}/{image,...}/{i}.npy`` below ``output``, and return what was made.

    ``size`` is (height, width), by default the recipe's; ``classes`` one of CLASSES; ``splits`` the ``splits.mat`` of
    NYUv2, by default the one beside the raw file. What an earlier call wrote is kept. ``progress`` is called after
    each frame. Raises SpecError for what makes no sense, DataError for what cannot be read or written, BackendMissing
    where a reader's package is not installed.
    """
    kind = kind_of(raw)
    classes = CLASSES[kind][0] if classes is None else classes
    if classes not in CLASSES[kind]:
        raise SpecError(f"{kind} has no {classes} classes; known: {', '.join(map(str, CLASSES[kind]))}")
    size = size or SIZES[kind]
    if min(size) < 1:
        raise SpecError(f"size {size[0]}x{size[1]} is not positive")
    if kind == "cityscapes":
        if splits is not None:
            raise SpecError("Cityscapes is split by its folders: leave out --splits")
        cityscapes = RawCityscapes(raw, size, classes)
        write(cityscapes, output, SPLITS, progress)
        return cityscapes.record
    with RawNyuv2(raw, size, classes, splits=splits) as nyuv2:
        write(nyuv2, output, SPLITS, progress)
        return nyuv2.record
