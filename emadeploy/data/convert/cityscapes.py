"""Cityscapes as its makers publish it: three packages of PNG files, unpacked beside each other.

    RAW/leftImg8bit/{train,val}/CITY/CITY_SEQ_FRAME_leftImg8bit.png          images, 1024 x 2048
    RAW/gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png           ids, 8 bits
    RAW/disparity/{train,val}/CITY/CITY_SEQ_FRAME_disparity.png              16 bits

Each may stand in the folder its archive makes, `leftImg8bit_trainvaltest/leftImg8bit` and so on. The split is that of
the folders; what is in ``test/`` has no published labels and is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.preprocess import UInt8, resize_nearest
from emadeploy.data.cityscapes import CLASSES, PIXELS_PER_UNIT
from emadeploy.data.convert.writing import as_stored_label
from emadeploy.data.label_tables import UNKNOWN_ID, cityscapes_table
from emadeploy.data.optional import read_png
from emadeploy.data.record import DatasetRecord
from emadeploy.pictures import opencv, read_picture

Array = npt.NDArray[Any]

#: Package -> what its files end in.
_ENDINGS = {
    "leftImg8bit": "_leftImg8bit.png",
    "gtFine": "_gtFine_labelIds.png",
    "disparity": "_disparity.png",
}


class RawCityscapes:
    """The raw data set in ``raw``, to be written at ``size`` (height, width) with 19 or 7 ``classes``.

    Raises DataError where a package is missing.
    """

    def __init__(self, raw: Path, size: tuple[int, int], classes: int) -> None:
        roots = {package: self.root_of(raw, package) for package in _ENDINGS}
        missing = [package for package, root in roots.items() if root is None]
        if missing:
            raise DataError(
                f"{raw} has no {'/, no '.join(missing)}/; unpack {', '.join(f'{m}_trainvaltest.zip' for m in missing)} "
                "of cityscapes-dataset.com there"
            )
        self._roots = {package: root for package, root in roots.items() if root is not None}
        self._label = f"label_{classes}"
        self._table = cityscapes_table(classes)
        self.folders = ("image", self._label, "depth")
        self.record = DatasetRecord(
            "cityscapes",
            CLASSES[classes],
            size,
            notes={
                "image": "mean over the pixels' areas",
                self._label: "nearest pixel of gtFine labelIds, by the table of cityscapesScripts",
                "depth": f"disparity of the nearest pixel, (PNG - 1) / 256 pixels of 2048, / {PIXELS_PER_UNIT}: larger "
                "is nearer; 0 is unknown (PNG 0), or infinitely far (PNG 1)",
            },
        )

    @staticmethod
    def root_of(raw: Path, package: str) -> Path | None:
        """Return the folder of a package in ``raw``, if it is there."""
        places = (raw / package, raw / f"{package}_trainvaltest" / package)
        return next((place for place in places if place.is_dir()), None)

    def names(self, split: str) -> list[str]:
        """Return 'CITY/CITY_SEQ_FRAME' of each frame, sorted; raises DataError where the split is empty."""
        root, ending = self._roots["leftImg8bit"] / split, _ENDINGS["leftImg8bit"]
        found = sorted(path.relative_to(root).as_posix() for path in root.glob(f"*/*{ending}"))
        if not found:
            raise DataError(f"{root} holds no CITY/*{ending}")
        return [name.removesuffix(ending) for name in found]

    def frame(self, split: str, name: str) -> dict[str, Array]:
        """Return the maps of a frame as they are stored; raises DataError naming the file that cannot be used."""
        paths = {package: root / split / f"{name}{_ENDINGS[package]}" for package, root in self._roots.items()}
        image = read_picture(paths["leftImg8bit"])
        ids = self._truth(paths["gtFine"], image, np.uint8)
        disparity = self._truth(paths["disparity"], image, np.uint16)
        label_HW = self._table[ids]
        if (label_HW == UNKNOWN_ID).any():
            raise DataError(f"{paths['gtFine']} holds the id {ids[label_HW == UNKNOWN_ID][0]}; ids go from 0 to 33")
        size = self.record.size
        return {
            "image": resize_area(image, size).astype(np.float32) / np.float32(255),
            self._label: as_stored_label(resize_nearest(label_HW, size)),
            "depth": resize_nearest(inverse_depth(disparity), size)[..., None],
        }

    @staticmethod
    def _truth(path: Path, image: Array, dtype: Any) -> Array:
        stored = read_png(path)
        if stored.dtype != dtype or stored.ndim != 2:
            wanted = f"(H, W) of {np.dtype(dtype)}"
            raise DataError(f"{path} has shape {stored.shape} of {stored.dtype}; expected {wanted}")
        if stored.shape != image.shape[:2]:
            raise DataError(
                f"{path} is {stored.shape[0]} x {stored.shape[1]} pixels, its image {image.shape[0]} x {image.shape[1]}"
            )
        return stored


def inverse_depth(disparity: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return the inverse depth of the layout for the numbers of a disparity PNG, 0 where there is none.

    The makers' ``disparity = (p - 1) / 256`` pixels for p > 0, in units of PIXELS_PER_UNIT.
    """
    pixels = np.maximum(disparity.astype(np.float32) - 1, 0) / np.float32(256)
    return (pixels / np.float32(PIXELS_PER_UNIT)).astype(np.float32)


def resize_area(image: UInt8, size: tuple[int, int]) -> UInt8:
    """Return an image at ``size`` (height, width), each pixel the mean of those that it covers."""
    if image.shape[:2] == size:
        return image
    cv2 = opencv()
    smaller = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized: UInt8 = cv2.resize(image, (size[1], size[0]), interpolation=kind)
    return resized
