"""Arrays as files hold them, into the maps of a :class:`~emadeploy.data.sample.Sample`.

Nothing on disk is trusted: an array that is not what it should be is a DataError, which :func:`naming` gives the
name of its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.data.sample import IGNORE

Array = npt.NDArray[Any]

# Room for what float16 and a resampling at the edge of the range leave.
_SLACK = 1e-2


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Prefix every DataError that leaves the block with ``what``, usually a path."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{what} {error}") from None


def load_npy(path: Path) -> Array:
    """Return the array of numbers in a ``.npy`` file; raises DataError naming the file."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a numpy array: {error}") from None
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
        raise DataError(f"{path} does not hold an array of numbers")
    return stored


def to_image(stored: Array) -> npt.NDArray[np.uint8]:
    """Return an image (H, W, 3): uint8 as it is, floats in [0, 1] times 255."""
    _check_finite(stored)
    _check_shape(stored, "(H, W, 3)", stored.ndim == 3 and stored.shape[2] == 3)
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind != "f":
        raise DataError(f"is an image of dtype {stored.dtype}; expected floats in [0, 1] or uint8")
    _check_range(stored, 0, 1)
    return np.rint(np.clip(stored.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def to_label(stored: Array, classes: int, ignored: Sequence[int] = (-1, IGNORE)) -> npt.NDArray[np.uint8]:
    """Return class indices (H, W), 0 to ``classes`` - 1; the ``ignored`` values become 255."""
    label_HW = _whole(_one_channel(stored))
    unlabelled = np.isin(label_HW, np.array(ignored))
    wrong = ~unlabelled & ((label_HW < 0) | (label_HW >= classes))
    if wrong.any():
        told = ", ".join(map(str, ignored)) or "nothing"
        raise DataError(
            f"holds the class {label_HW[wrong][0]}; expected 0 to {classes - 1}, or {told} where unlabelled"
        )
    return np.where(unlabelled, IGNORE, label_HW).astype(np.uint8)


def to_depth(stored: Array) -> npt.NDArray[np.float32]:
    """Return depth (H, W) in the unit that is stored, 0 where it is unknown."""
    _check_finite(stored)
    depth_HW = _one_channel(stored).astype(np.float32)
    if depth_HW.min() < 0:
        raise DataError(f"holds the depth {depth_HW.min():g}; expected values from 0 (unknown) up")
    return depth_HW


def to_normals(stored: Array) -> npt.NDArray[np.float32]:
    """Return normals (H, W, 3), (0, 0, 0) where they are unknown."""
    _check_finite(stored)
    _check_shape(stored, "(H, W, 3)", stored.ndim == 3 and stored.shape[2] == 3)
    _check_range(stored, -1, 1)
    return stored.astype(np.float32)


def to_binary(stored: Array) -> npt.NDArray[np.uint8]:
    """Return edges or saliency (H, W): 0 or 1, 255 where it is unknown."""
    binary_HW = _whole(_one_channel(stored))
    wrong = ~np.isin(binary_HW, (0, 1, IGNORE))
    if wrong.any():
        raise DataError(f"holds the value {binary_HW[wrong][0]}; expected 0, 1 or {IGNORE}")
    return binary_HW.astype(np.uint8)


#: Task without classes -> what makes its map.
CONVERT: dict[str, Callable[[Array], Array]] = {
    "depth": to_depth,
    "normals": to_normals,
    "edge": to_binary,
    "saliency": to_binary,
}


def to_map(task: str, stored: Array, classes: int = IGNORE) -> Array:
    """Return the map of ``task``, of ``classes`` classes where it has any, as the functions above do."""
    return CONVERT[task](stored) if task in CONVERT else to_label(stored, classes)


def check_size(map_HW: Array, image: Array) -> None:
    """Raise DataError unless a truth has its image's height and width."""
    if map_HW.shape[:2] != image.shape[:2]:
        raise DataError(f"is {_size(map_HW)} pixels, its image {_size(image)}")


def _one_channel(stored: Array) -> Array:
    fits = stored.ndim == 2 or (stored.ndim == 3 and stored.shape[2] == 1)
    _check_shape(stored, "(H, W) or (H, W, 1)", fits)
    return stored.reshape(stored.shape[:2])


def _whole(stored: Array) -> npt.NDArray[np.int64]:
    _check_finite(stored)
    whole = stored.astype(np.int64)
    if (whole != stored).any():
        raise DataError(f"holds {stored[whole != stored][0]:g}; expected whole numbers")
    return whole


def _check_finite(stored: Array) -> None:
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise DataError("holds values that are not finite")


def _check_shape(stored: Array, wanted: str, fits: bool) -> None:
    if not fits or 0 in stored.shape:
        raise DataError(f"has shape {stored.shape}; expected {wanted}")


def _check_range(stored: Array, low: float, high: float) -> None:
    if stored.min() < low - _SLACK or stored.max() > high + _SLACK:
        raise DataError(f"holds values from {stored.min():g} to {stored.max():g}; expected {low} to {high}")


def _size(map_HW: Array) -> str:
    return f"{map_HW.shape[0]} x {map_HW.shape[1]}"
