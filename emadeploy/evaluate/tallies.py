"""Tallies of classes, depth and normals: what is added up over frames, and the metrics that the sums give.

A tally holds one float64 array, ``state``, of sums alone: the state of two sets of frames together is the sum of
their states, and memory does not grow with the frames. Metrics are over the *pixels of all frames*, not means of
frames; the few that the literature takes per picture say so. A metric without a single pixel to measure it on is
absent from the answer: nothing is made up, and no NaN reaches a json file.

Probabilities (edges, saliency) have theirs in :mod:`emadeploy.evaluate.probabilities`, and edges matched with a
tolerance in :mod:`emadeploy.evaluate.boundaries`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

#: Truth that is not to be judged, and a predicted class that is no answer.
IGNORE = 255
#: Degrees per bin of the histogram of angles. The thresholds of the angles, and so their shares, fall on its edges.
ANGLE_BIN = 0.01
_ANGLE_BINS = round(180 / ANGLE_BIN) + 1
#: Predicted depth under this, in the task's unit, has the logarithm of this: that of 0, "no answer", is no number.
LOG_FLOOR = 1e-3
#: Pixels worked on at once: what a step leaves is still in the cache when the next one reads it.
_CHUNK = 8192


class Tally(Protocol):
    """What a tally is. ``update`` raises DataError for maps that are not in the convention of the task."""

    state: Float64

    def update(self, predicted: Array, truth: Array) -> int:
        """Add the pixels of one frame; return how many of them were judged."""

    def compute(self) -> dict[str, float]:
        """Return the metrics of all pixels so far, by name; empty without a valid pixel."""


class LabelTally:
    """Class maps: uint8 (H, W), truth 255 is ignored, a prediction of 255 (no answer) is wrong.

    ``state`` is the confusion matrix (C, C + 1): truth by prediction, the last column being "no answer".
    """

    def __init__(self, task: TaskSpec) -> None:
        self.classes, self.class_names = task.channels, task.class_names
        self.state: Float64 = np.zeros((self.classes, self.classes + 1))

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError for a class that the task lacks."""
        valid_HW = truth != IGNORE
        true = truth[valid_HW].astype(np.intp)
        guess = predicted[valid_HW].astype(np.intp)
        check_classes("truth", true, self.classes - 1)
        check_classes("the prediction", guess[guess != IGNORE], self.classes - 1)
        guess[guess == IGNORE] = self.classes
        pairs = np.bincount(true * (self.classes + 1) + guess, minlength=self.state.size)
        self.state += pairs.reshape(self.state.shape)
        return int(true.size)

    def compute(self) -> dict[str, float]:
        """Return ``miou`` and ``pixel_accuracy``, percent.

        The mean is over the classes whose union is not empty: those that occur in the truth, or in the prediction
        where there is truth, in any frame. A class that occurs nowhere has no IoU and does not enter the mean; one
        that is predicted but never true has 0. So do the evaluation scripts of PASCAL VOC and Cityscapes, which
        average an accumulated confusion matrix and leave undefined classes out.
        """
        total = self.state.sum()
        if not total:
            return {}
        iou = self._iou()
        # A prediction of nothing but "no answer" still leaves the union of the true classes.
        miou = float(np.mean(iou[np.isfinite(iou)]))
        return {"miou": miou, "pixel_accuracy": float(100 * self.state.diagonal().sum() / total)}

    def per_class(self) -> dict[str, float]:
        """Return the IoU by class name (its index, where it has none), percent; a class without an IoU is absent."""
        names = self.class_names or map(str, range(self.classes))
        return {name: float(iou) for name, iou in zip(names, self._iou(), strict=True) if np.isfinite(iou)}

    def _iou(self) -> Float64:
        """Return the IoU of each class, percent; NaN where the union is empty."""
        hits = self.state.diagonal()
        union = self.state.sum(axis=1) + self.state[:, :-1].sum(axis=0) - hits
        iou: Float64 = np.divide(hits, union, out=np.full(self.classes, np.nan), where=union > 0)
        return 100 * iou


class DepthTally:
    """Depth maps: float32 (H, W) in the task's unit; truth 0 is ignored, a prediction under 0 counts as 0.

    The formulas are the same for metres and inverse depth, each in its own unit: ``abs`` and ``rel`` of Cityscapes are
    those of the published tables, of inverse depth. A prediction of 0 is judged as it stands, but for its logarithm:
    see LOG_FLOOR.
    ``state``: pixels, then the sums of |p - t|, |p - t| / t, (p - t)^2, (ln p - ln t)^2, and the pixels within a
    factor 1.25^k.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.state: Float64 = np.zeros(8)

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError where a value is not finite."""
        valid_HW = truth > 0
        true = truth[valid_HW].astype(np.float64)
        guess = np.maximum(predicted[valid_HW].astype(np.float64), 0)
        error = np.abs(guess - true)
        ratio = np.log(np.maximum(guess, LOG_FLOOR) / true)
        sums = [true.size, error.sum(), (error / true).sum(), error @ error, ratio @ ratio]
        if not np.isfinite(sums).all():
            raise DataError("the prediction or the truth holds values that are not finite")
        # max(p/t, t/p) < limit, without a division by a prediction of 0.
        sums += [
            np.count_nonzero((guess < limit * true) & (true < limit * guess)) for limit in (1.25, 1.25**2, 1.25**3)
        ]
        self.state += sums
        return int(true.size)

    def compute(self) -> dict[str, float]:
        """Return ``abs`` and ``rmse`` in the task's unit, ``rel`` and ``log_rmse`` (1), and ``delta1..3``, percent."""
        pixels = self.state[0]
        if not pixels:
            return {}
        absolute, relative, square, log_square, *within = (self.state[1:] / pixels).tolist()
        shares = {f"delta{k}": 100 * share for k, share in enumerate(within, start=1)}
        return {"abs": absolute, "rel": relative, "rmse": square**0.5, "log_rmse": log_square**0.5, **shares}


class AngleTally:
    """Normals: float32 (H, W, 3) of any length; truth (0, 0, 0) is ignored, a prediction of it is 90 degrees off.

    ``state``: a histogram of the angles in bins of ANGLE_BIN degrees, then the sums of the angles and their squares.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.state: Float64 = np.zeros(_ANGLE_BINS + 2)

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError where a value is not finite."""
        valid = np.flatnonzero((truth[..., 0] != 0) | (truth[..., 1] != 0) | (truth[..., 2] != 0))
        angles = angles_between(*(vectors.reshape(-1, 3).take(valid, axis=0) for vectors in (predicted, truth)))
        sums = [angles.sum(), angles @ angles]
        if not np.isfinite(sums).all():
            raise DataError("the prediction or the truth holds values that are not finite")
        self.state[:-2] += np.bincount((angles / ANGLE_BIN).astype(np.intp), minlength=_ANGLE_BINS)
        self.state[-2:] += sums
        return int(angles.size)

    def compute(self) -> dict[str, float]:
        """Return ``mean`` and ``rmse`` (exact) and ``median``, degrees, and ``within_11_25`` and so on, percent.

        The median is read off the histogram: at most ANGLE_BIN from the true one, which lies in the same bin. (Of an
        even number of pixels, the lower of the two in the middle.)
        """
        below = np.cumsum(self.state[:-2])  # below[k]: pixels under the upper edge of bin k
        pixels = below[-1]
        if not pixels:
            return {}
        middle = int(np.searchsorted(below, pixels / 2))
        before = below[middle - 1] if middle else 0.0
        fraction = (pixels / 2 - before) / self.state[middle]
        mean, square = (self.state[-2:] / pixels).tolist()
        metrics = {"mean": mean, "median": float((middle + fraction) * ANGLE_BIN), "rmse": square**0.5}
        for name, limit in (("within_11_25", 11.25), ("within_22_5", 22.5), ("within_30", 30.0)):
            metrics[name] = float(100 * below[round(limit / ANGLE_BIN) - 1] / pixels)
        return metrics


def angles_between(a: Array, b: Array) -> Float64:
    """Return the angles between vectors (..., 3) of any length, degrees in [0, 180].

    The angle to a vector of length 0 is 90 degrees: its dot product with anything is 0.
    """
    a, b = np.broadcast_arrays(a, b)
    a_N3, b_N3 = a.reshape(-1, 3), b.reshape(-1, 3)
    angles = np.empty(len(a_N3))
    for start in range(0, len(a_N3), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        ax, ay, az = a_N3[chunk].T.astype(np.float64, order="C")
        bx, by, bz = b_N3[chunk].T.astype(np.float64, order="C")
        with np.errstate(invalid="ignore"):  # infinities become NaN, which the callers refuse
            cross = np.sqrt((ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2)
            dot = ax * bx + ay * by + az * bz
        # atan2 is exact for equal vectors, where the arccos of a rounded dot product is off by hundredths of a degree.
        np.arctan2(cross, dot, out=angles[chunk])
        # Of finite vectors, only those with a vector of length 0 give two zeros.
        angles[chunk][(cross == 0) & (dot == 0)] = np.pi / 2
    return np.degrees(angles, out=angles).reshape(a.shape[:-1])


def check_classes(where: str, classes: npt.NDArray[np.intp], last: int) -> None:
    """Raise DataError where ``classes`` holds a value that is not from 0 to ``last``."""
    if classes.size and (classes.min() < 0 or classes.max() > last):
        wrong = classes[(classes < 0) | (classes > last)][0]
        raise DataError(f"{where} holds the value {wrong}; expected 0 to {last}, or {IGNORE}")
