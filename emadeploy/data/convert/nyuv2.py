"""NYUv2 as its makers publish it: one MATLAB 7.3 file of 1449 labelled frames, 480 x 640.

    RAW/nyu_depth_v2_labeled.mat    images, depths, rawDepths, labels (894 of them, 0 unlabelled)
    RAW/splits.mat                  trainNdxs (795) and testNdxs (654), counted from 1
    RAW/classMapping40.mat          if there: mapClass, the 40 classes of the labels, in place of the table here
    RAW/normals/{1..1449}.npy       if there: (480, 640, 3) normals of another source, in axes of their own

MATLAB 7.3 is HDF5 with the axes in reverse order: an image (480, 640, 3) is stored as (3, 640, 480).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError, first_line
from emadeploy.contract.preprocess import resize_nearest
from emadeploy.data.convert.cityscapes import resize_area
from emadeploy.data.convert.writing import as_stored_label
from emadeploy.data.label_tables import NYUV2_LABELS, nyuv2_table
from emadeploy.data.maps import load_npy, naming, to_depth, to_normals
from emadeploy.data.normals import Intrinsics, normals_from_depth
from emadeploy.data.optional import open_hdf5, read_matlab
from emadeploy.data.record import DatasetRecord

Array = npt.NDArray[Any]

MAT_NAME = "nyu_depth_v2_labeled.mat"
_HEIGHT, _WIDTH = 480, 640
#: Rows and columns that the projection of the depth onto the colour camera fills, as is usual for this data set.
_CROP = slice(45, 471), slice(41, 601)
#: The colour camera of the makers' toolbox, `camera_params.m`; MATLAB counts pixels from 1.
CAMERA = Intrinsics(fx=518.85790117450188, fy=519.46961112127485, cx=324.58244941119034, cy=252.73616633400465)
#: Variable -> axes before the two of the picture, after the reversal.
_VARIABLES = {"images": 2, "depths": 1, "labels": 1}


class RawNyuv2:
    """The raw data set at ``raw`` (the .mat file, or its folder), to be written at ``size`` with ``classes`` classes.

    A context manager: the file stays open. Raises DataError where a file is missing or is not what it should be.
    """

    def __init__(self, raw: Path, size: tuple[int, int], classes: int, *, splits: Path | None = None) -> None:
        self._path = raw if raw.suffix == ".mat" else raw / MAT_NAME
        folder = self._path.parent
        mapping = folder / "classMapping40.mat"
        given = read_matlab(mapping, "mapClass")["mapClass"] if mapping.exists() else None
        with naming(mapping):
            self._table = nyuv2_table(classes, given)
        self._normals = folder / "normals" if (folder / "normals").is_dir() else None
        self._file = open_hdf5(self._path)
        try:
            self._count = self._check()
            self._splits = self._read_splits(splits or folder / "splits.mat")
        except BaseException:
            self._file.close()
            raise
        self.folders = ("image", "label", "depth", "normal")
        self.record = DatasetRecord(
            "nyuv2",
            f"nyuv2-{classes}",
            size,
            "dataset" if self._normals else "camera_optical",
            notes={
                "image": "rows 45 to 470 and columns 41 to 600, mean over the pixels' areas",
                "label": f"{'classMapping40.mat' if mapping.exists() else 'the published table'}, nearest pixel",
                "depth": "metres, filled in where the sensor saw nothing (`depths`), nearest pixel",
                "normal": f"given, {self._normals.name}/, nearest pixel"
                if self._normals
                else "computed: planes fitted to the depth, where the sensor saw it; not the release's",
            },
        )

    def __enter__(self) -> RawNyuv2:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def names(self, split: str) -> list[str]:
        """Return the numbers of the frames, counted from 1 as the makers do."""
        return [str(number) for number in self._splits[split]]

    def frame(self, split: str, name: str) -> dict[str, Array]:
        """Return the maps of a frame as they are stored; raises DataError naming what cannot be used."""
        index, size = int(name) - 1, self.record.size
        with naming(f"{self._path}, frame {name}:"):
            image = self._read("images", index).transpose(1, 2, 0)
            labels_HW, depth_HW = self._read("labels", index), to_depth(self._read("depths", index))
            if labels_HW.max() > NYUV2_LABELS:
                raise DataError(f"holds the label {labels_HW.max()}; expected 0 to {NYUV2_LABELS}")
            normals = self._computed(depth_HW, index) if self._normals is None else None
        if normals is None:
            normals = self._given(int(name))
        return {
            "image": resize_area(np.ascontiguousarray(image[_CROP]), size).astype(np.float32) / np.float32(255),
            "label": as_stored_label(resize_nearest(self._table[labels_HW][_CROP], size)),
            "depth": resize_nearest(depth_HW[_CROP], size)[..., None],
            "normal": resize_nearest(normals[_CROP], size),
        }

    def _check(self) -> int:
        """Return the number of frames."""
        counts = set()
        for name, axes in _VARIABLES.items():
            if name not in self._file:
                raise DataError(f"{self._path} holds no {name}")
            shape = self._file[name].shape
            if len(shape) != axes + 2 or shape[-2:] != (_WIDTH, _HEIGHT) or (axes == 2 and shape[1] != 3):
                wanted = "(N, 3, 640, 480)" if axes == 2 else "(N, 640, 480)"
                raise DataError(f"{self._path}: {name} has shape {shape}; expected {wanted}")
            counts.add(shape[0])
        if len(counts) != 1:
            raise DataError(f"{self._path}: images, depths and labels are of {sorted(counts)} frames")
        return counts.pop()

    def _read(self, variable: str, index: int) -> Array:
        """Return a frame's part of a variable, (H, W) or (3, H, W)."""
        try:
            return np.swapaxes(self._file[variable][index], -1, -2)
        except OSError as error:
            raise DataError(f"{variable} cannot be read: {first_line(error)}") from None

    def _computed(self, depth_HW: Array, index: int) -> Array:
        if "rawDepths" in self._file:
            # What was filled in is smooth by construction: its normals would be invented.
            depth_HW = np.where(self._read("rawDepths", index) > 0, depth_HW, 0)
        return normals_from_depth(depth_HW, CAMERA)

    def _given(self, number: int) -> Array:
        assert self._normals is not None
        path = self._normals / f"{number}.npy"
        stored = load_npy(path)
        with naming(path):
            normals = to_normals(stored)
            if normals.shape[:2] != (_HEIGHT, _WIDTH):
                raise DataError(f"has shape {normals.shape}; expected ({_HEIGHT}, {_WIDTH}, 3)")
        return normals

    def _read_splits(self, path: Path) -> dict[str, list[int]]:
        if not path.exists():
            raise DataError(
                f"{path} is not there: NYUv2 is split by its makers' splits.mat (795 frames to train, 654 to test); "
                "put it beside the raw file, or name it with --splits"
            )
        stored = read_matlab(path, "trainNdxs", "testNdxs")
        numbers = {
            split: np.asarray(stored[name]).ravel().astype(np.int64).tolist()
            for split, name in (("train", "trainNdxs"), ("val", "testNdxs"))
        }
        both = numbers["train"] + numbers["val"]
        if len(set(both)) != len(both):
            raise DataError(f"{path} lists a frame twice")
        wrong = [number for number in both if not 1 <= number <= self._count]
        if wrong or not numbers["train"] or not numbers["val"]:
            told = f"lists frame {wrong[0]}" if wrong else "leaves a split empty"
            raise DataError(f"{path} {told}; {self._path.name} has frames 1 to {self._count}")
        return numbers
