"""The one preprocess: a camera frame becomes the network's input. Every stage calls it, from training to runtime.

Bilinear resampling uses half-pixel centres and clamps at the border (ONNX ``half_pixel``, PyTorch
``align_corners=False``), so that the same arithmetic can also run inside an exported graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import FrameError
from emadeploy.contract.spec import InputSpec

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

ORDERS = ("rgb", "bgr")


def check_frame(frame: object) -> UInt8:
    """Return ``frame`` if it is a uint8 array of shape (H, W, 3) with at least one pixel; raises FrameError."""
    wanted = "expected uint8 of shape (height, width, 3)"
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"a frame is a numpy array, got {type(frame).__name__}; {wanted}")
    if frame.dtype != np.uint8:
        raise FrameError(
            f"frame has dtype {frame.dtype} and shape {frame.shape}; {wanted}"
            + (", values 0 to 255" if frame.dtype.kind == "f" else "")
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise FrameError(f"frame has shape {frame.shape}; {wanted}")
    return frame


def to_rgb(frame: object, order: str = "rgb") -> UInt8:
    """Return a view of ``frame`` (H, W, 3) with its channels in the order RGB; raises FrameError as the others do."""
    checked = check_frame(frame)
    if order not in ORDERS:
        raise FrameError(f"order {order!r} is unknown; known: {', '.join(ORDERS)}")
    return checked if order == "rgb" else checked[:, :, ::-1]


def preprocess(frame: UInt8, spec: InputSpec, order: str = "rgb") -> Float32:
    """Return the network's input, float32 of shape (1, 3, height, width), for a uint8 frame (H, W, 3) of any size.

    The frame is resized bilinearly to ``spec``'s size, scaled to [0, 1] and normalised with its mean and std.
    ``order`` is 'rgb' or, for frames from OpenCV, 'bgr'. Raises FrameError for a frame of another type or shape.
    """
    image_CHW = resize_bilinear(np.moveaxis(to_rgb(frame, order), 2, 0), spec.size)
    image_CHW *= np.float32(1 / 255)
    if any(spec.mean) or spec.std != (1.0, 1.0, 1.0):
        image_CHW -= np.asarray(spec.mean, np.float32)[:, None, None]
        image_CHW /= np.asarray(spec.std, np.float32)[:, None, None]
    return image_CHW[None]


def resize_bilinear(map_CHW: npt.NDArray[np.generic], size: tuple[int, int]) -> Float32:
    """Return the maps (C, H, W) resampled to (C, *size) as a new contiguous float32 array."""
    if map_CHW.shape[1:] == size:
        return np.array(map_CHW, np.float32, order="C")
    [(_, resized_CHW)] = resize_bands(map_CHW, size, size[0])
    return np.ascontiguousarray(resized_CHW)


def resize_bands(map_CHW: npt.NDArray[np.generic], size: tuple[int, int], rows: int) -> Iterator[tuple[slice, Float32]]:
    """Yield what :func:`resize_bilinear` returns ``rows`` rows at a time: which rows, and the band (C, rows, W).

    A band of many classes fits into the processor's cache where the whole does not. It may be a view of ``map_CHW``.
    """
    old_height, old_width = map_CHW.shape[1:]
    height, width = size
    # Columns cost most, being gathered one by one: resample them while there are fewest rows.
    columns_first = height > old_height
    if columns_first and width != old_width:
        map_CHW = _lerp(map_CHW, taps(old_width, width), axis=2)
    below, above, weight = taps(old_height, height)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        if height == old_height:
            band_CHW = np.asarray(map_CHW[:, band], np.float32)
        else:
            band_CHW = _lerp(map_CHW, (below[band], above[band], weight[band]), axis=1)
        if not columns_first and width != old_width:
            band_CHW = _lerp(band_CHW, taps(old_width, width), axis=2)
        yield band, band_CHW


def resize_nearest(map_HW: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.generic]:
    """Return a map (H, W, ...) resampled to ``size`` by nearest neighbour (labels and depth must not be mixed)."""
    rows = ((np.arange(size[0]) + 0.5) * map_HW.shape[0] / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * map_HW.shape[1] / size[1]).astype(np.intp)
    resized: npt.NDArray[np.generic] = map_HW[rows[:, None], columns[None, :]]
    return resized


#: For each new sample: index below, index above, weight of the one above.
Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float32]


@lru_cache(maxsize=64)
def taps(old: int, new: int) -> Taps:
    centre = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0.0)
    below = np.minimum(centre.astype(np.intp), old - 1)
    above = np.minimum(below + 1, old - 1)
    return below, above, (centre - below).astype(np.float32)


def _lerp(map_CHW: npt.NDArray[np.generic], taps: Taps, axis: int) -> Float32:
    below, above, weight = taps
    weight = weight[:, None] if axis == 1 else weight
    low = np.take(map_CHW, below, axis=axis).astype(np.float32, copy=False)
    high = np.take(map_CHW, above, axis=axis).astype(np.float32)
    high -= low
    high *= weight
    high += low
    return high
