"""Labels at the frame's size from scores at the network's: the argmax of scores that were resized bilinearly.

A resized score is a mean of four, so where one class is ahead in all four it is ahead in the mean: between samples that
agree there is nothing to compute. Only where they do not, along the borders of the labels, are scores resized at all.
That is a few percent of the pixels of a frame, and the larger the frame, the more it saves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emadeploy.contract.preprocess import Float32, Taps, UInt8, resize_bands, taps

#: Marks pixels that are still to be decided: no class has this index.
_OPEN = 255
#: Beyond this share of open pixels, resizing all scores in order is faster than gathering those of some.
_MOST_OPEN = 0.2
#: Pixels decided at once, so that their scores stay in the cache.
_CHUNK = 1 << 13
#: Rows resized at once: 32 of 13 classes at 1920 columns are 3 MB, where the whole would be 100.
BAND_ROWS = 32


def resized_argmax(score_CHW: npt.NDArray[np.floating], size: tuple[int, int]) -> UInt8:
    """Return uint8 labels ``size`` = (H, W): at each pixel the class whose bilinearly resized score is the highest.

    Of classes with the same score the first counts. ``score_CHW`` is finite and has at most 255 classes.
    """
    score_CHW = np.asarray(score_CHW, np.float32)
    if score_CHW.shape[1:] == size:
        return argmax(score_CHW)
    label_HW = _agreed(score_CHW, size)
    open_N = np.flatnonzero(label_HW == _OPEN)
    if len(open_N) > _MOST_OPEN * label_HW.size:
        for band, band_CHW in resize_bands(score_CHW, size, BAND_ROWS):
            label_HW[band] = argmax(band_CHW)
        return label_HW
    rows, columns = taps(score_CHW.shape[1], size[0]), taps(score_CHW.shape[2], size[1])
    score_HWC = np.ascontiguousarray(np.moveaxis(score_CHW, 0, 2))
    for first in range(0, len(open_N), _CHUNK):
        chosen_N = open_N[first : first + _CHUNK]
        row_N, column_N = np.divmod(chosen_N, size[1])
        label_HW.flat[chosen_N] = _resized(score_HWC, _of(rows, row_N), _of(columns, column_N)).argmax(axis=1)
    return label_HW


def argmax(score_CHW: Float32) -> UInt8:
    """Return the class (H, W) with the highest score, the first of those with the same."""
    # Class by class: argmax over the first axis of a numpy array walks through memory with a stride.
    best_HW = score_CHW[0].copy()
    label_HW = np.zeros(best_HW.shape, np.uint8)
    for index, score_HW in enumerate(score_CHW[1:], start=1):
        np.putmask(label_HW, score_HW > best_HW, index)
        np.maximum(best_HW, score_HW, out=best_HW)
    return label_HW


def _agreed(score_CHW: Float32, size: tuple[int, int]) -> UInt8:
    """Return the labels ``size`` where all samples around a pixel agree, elsewhere :data:`_OPEN`."""
    label_HW = argmax(score_CHW)
    height, width = label_HW.shape
    below, right = np.minimum(np.arange(height) + 1, height - 1), np.minimum(np.arange(width) + 1, width - 1)
    same_HW = label_HW == label_HW[:, right]
    same_HW &= same_HW[below] & (label_HW == label_HW[below])
    label_HW[~same_HW] = _OPEN
    (row, _, _), (column, _, _) = taps(height, size[0]), taps(width, size[1])
    # Columns first: rows are then copied whole.
    agreed_HW: UInt8 = label_HW.take(column, axis=1).take(row, axis=0)
    return agreed_HW


def _of(all_taps: Taps, index_N: npt.NDArray[np.intp]) -> Taps:
    below, above, weight = all_taps
    return below[index_N], above[index_N], weight[index_N]


def _resized(score_HWC: Float32, rows: Taps, columns: Taps) -> Float32:
    """Return the scores (N, C) at N pixels, each between two rows and two columns, as resizing columns first does."""
    (top, bottom, row_weight), (left, right, column_weight) = rows, columns

    def between(row: npt.NDArray[np.intp]) -> Float32:
        return _lerp(score_HWC[row, left], score_HWC[row, right], column_weight)

    return _lerp(between(top), between(bottom), row_weight)


def _lerp(low_NC: Float32, high_NC: Float32, weight_N: Float32) -> Float32:
    high_NC -= low_NC
    high_NC *= weight_N[:, None]
    high_NC += low_NC
    return high_NC
