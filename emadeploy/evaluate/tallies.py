"""One tally per kind of map: what is added up over frames, and the metrics that the sums give.

A tally holds one float64 array, ``state``; the state of two sets of frames together is the sum of their states, and
memory does not grow with the frames. All metrics are means over the *pixels of all frames*, not means of frames.
A metric without a single pixel to measure it on is absent from the answer: nothing is made up, and no NaN reaches a
json file.
"""

from __future__ import annotations

from collections.abc import Callable
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
#: Thresholds tried for the best F-measure: 0, 1/STEPS, ... 1.
THRESHOLD_STEPS = 1000
_SALIENCY_BETA2 = 0.3  # Achanta et al., Frequency-tuned Salient Region Detection, CVPR 2009


class Tally(Protocol):
    """What a tally is. ``update`` raises DataError for maps that are not in the convention of the task."""

    state: Float64

    def update(self, predicted: Array, truth: Array) -> None:
        """Add the pixels of one frame."""

    def compute(self) -> dict[str, float]:
        """Return the metrics of all pixels so far, by name; empty without a valid pixel."""


class LabelTally:
    """Class maps: uint8 (H, W), truth 255 is ignored, a prediction of 255 (no answer) is wrong.

    ``state`` is the confusion matrix (C, C + 1): truth by prediction, the last column being "no answer".
    """

    def __init__(self, task: TaskSpec) -> None:
        self.classes = task.channels
        self.state: Float64 = np.zeros((self.classes, self.classes + 1))

    def update(self, predicted: Array, truth: Array) -> None:
        """Add one frame. Raises DataError for a class that the task does not have."""
        valid_HW = truth != IGNORE
        true = truth[valid_HW].astype(np.intp)
        guess = predicted[valid_HW].astype(np.intp)
        _check_classes("truth", true, self.classes - 1)
        _check_classes("the prediction", guess[guess != IGNORE], self.classes - 1)
        guess[guess == IGNORE] = self.classes
        pairs = np.bincount(true * (self.classes + 1) + guess, minlength=self.state.size)
        self.state += pairs.reshape(self.state.shape)

    def compute(self) -> dict[str, float]:
        """Return ``miou`` and ``pixel_accuracy``, percent.

        The mean is over the classes whose union is not empty: those that occur in the truth, or in the prediction
        where there is truth. A class that occurs nowhere has no IoU; one that is predicted but never true has 0.
        """
        total = self.state.sum()
        if not total:
            return {}
        hits = self.state.diagonal()
        union = self.state.sum(axis=1) + self.state[:, :-1].sum(axis=0) - hits
        occurs = union > 0
        return {
            # A prediction of nothing but "no answer" still leaves the union of the true classes.
            "miou": float(100 * np.mean(hits[occurs] / union[occurs])),
            "pixel_accuracy": float(100 * hits.sum() / total),
        }


class DepthTally:
    """Depth maps: float32 (H, W) in the task's unit; truth 0 is ignored. A prediction of 0 is judged as it stands.

    ``state``: pixels, then the sums of |p - t|, |p - t| / t, (p - t)^2, and the pixels within a factor 1.25^k.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.state: Float64 = np.zeros(7)

    def update(self, predicted: Array, truth: Array) -> None:
        """Add one frame. Raises DataError where the prediction or the truth is not finite."""
        valid_HW = truth > 0
        true = truth[valid_HW].astype(np.float64)
        guess = predicted[valid_HW].astype(np.float64)
        error = np.abs(guess - true)
        sums = [true.size, error.sum(), (error / true).sum(), (error * error).sum()]
        if not np.isfinite(sums).all():
            raise DataError("the prediction or the truth holds values that are not finite")
        # max(p/t, t/p) < limit, without a division by a prediction of 0.
        sums += [
            np.count_nonzero((guess < limit * true) & (true < limit * guess)) for limit in (1.25, 1.25**2, 1.25**3)
        ]
        self.state += sums

    def compute(self) -> dict[str, float]:
        """Return ``abs`` and ``rmse`` in the task's unit, ``rel`` (1), and ``delta1..3``, percent."""
        pixels = self.state[0]
        if not pixels:
            return {}
        absolute, relative, square, *within = (self.state[1:] / pixels).tolist()
        shares = {f"delta{k}": 100 * share for k, share in enumerate(within, start=1)}
        return {"abs": absolute, "rel": relative, "rmse": square**0.5, **shares}


class AngleTally:
    """Normals: float32 (H, W, 3) of any length; truth (0, 0, 0) is ignored, a prediction of it is 90 degrees off.

    ``state``: a histogram of the angles in bins of ANGLE_BIN degrees, then the sum of the angles.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.state: Float64 = np.zeros(_ANGLE_BINS + 1)

    def update(self, predicted: Array, truth: Array) -> None:
        """Add one frame. Raises DataError where the prediction or the truth is not finite."""
        valid_HW = truth.any(axis=-1)
        angles = angles_between(predicted[valid_HW], truth[valid_HW])
        if not np.isfinite(angles).all():
            raise DataError("the prediction or the truth holds values that are not finite")
        self.state[:-1] += np.bincount((angles / ANGLE_BIN).astype(np.intp), minlength=_ANGLE_BINS)
        self.state[-1] += angles.sum()

    def compute(self) -> dict[str, float]:
        """Return ``mean`` (exact) and ``median`` (to ANGLE_BIN), degrees, and ``within_11_25`` and so on, percent."""
        below = np.cumsum(self.state[:-1])  # below[k]: pixels under the upper edge of bin k
        pixels = below[-1]
        if not pixels:
            return {}
        middle = int(np.searchsorted(below, pixels / 2))
        before = below[middle - 1] if middle else 0.0
        fraction = (pixels / 2 - before) / self.state[middle]
        metrics = {"mean": float(self.state[-1] / pixels), "median": float((middle + fraction) * ANGLE_BIN)}
        for name, limit in (("within_11_25", 11.25), ("within_22_5", 22.5), ("within_30", 30.0)):
            metrics[name] = float(100 * below[round(limit / ANGLE_BIN) - 1] / pixels)
        return metrics


class BestFTally:
    """Probabilities (H, W) in [0, 1] against truth uint8 0 or 1, 255 ignored: the best F-measure over all thresholds.

    One threshold serves all frames, and a pixel counts where it is: no tolerance for edges that are a pixel off, so
    this is not the odsF of BSDS; no mean over pictures either, as some saliency benchmarks take.
    ``state`` (2, THRESHOLD_STEPS + 1): histograms of the predictions where the truth is 0 and where it is 1.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.name, self.beta2 = ("maxf", _SALIENCY_BETA2) if task.kind == "saliency" else ("f1", 1.0)
        self.state: Float64 = np.zeros((2, THRESHOLD_STEPS + 1))

    def update(self, predicted: Array, truth: Array) -> None:
        """Add one frame. Raises DataError for a prediction outside [0, 1] or a truth other than 0, 1 and 255."""
        valid_HW = truth != IGNORE
        true = truth[valid_HW].astype(np.intp)
        guess = predicted[valid_HW].astype(np.float64)
        _check_classes("truth", true, 1)
        if not ((guess >= 0) & (guess <= 1)).all():
            raise DataError("the prediction is not a probability: values outside [0, 1] or not finite")
        steps = self.state.shape[1]
        # The nudge puts 0.29 (0.28999... in binary) into the bin that begins at 0.29.
        bins = (guess * THRESHOLD_STEPS + 1e-4).astype(np.intp)
        self.state += np.bincount(true * steps + bins, minlength=2 * steps).reshape(2, steps)

    def compute(self) -> dict[str, float]:
        """Return ``f1`` (edges) or ``maxf`` (saliency, beta^2 = 0.3), percent; absent where no pixel is positive."""
        positives = self.state[1].sum()
        if not positives:
            return {}
        # Row sums from the right: what is at or above each threshold.
        false_positives, true_positives = np.cumsum(self.state[:, ::-1], axis=1)
        # (1 + b) P R / (b P + R), with P = tp / (tp + fp) and R = tp / positives, is free of 0 / 0 in this form.
        f = (1 + self.beta2) * true_positives / (self.beta2 * positives + true_positives + false_positives)
        return {self.name: float(100 * f.max())}


#: Task kind -> what makes its tally.
TALLIES: dict[str, Callable[[TaskSpec], Tally]] = {
    "semseg": LabelTally,
    "depth": DepthTally,
    "normals": AngleTally,
    "edge": BestFTally,
    "saliency": BestFTally,
    "human_parts": LabelTally,
}


def angles_between(a: Array, b: Array) -> Float64:
    """Return the angles between vectors (..., 3) of any length, degrees in [0, 180].

    The angle to a vector of length 0 is 90 degrees: its dot product with anything is 0.
    """
    ax, ay, az = np.moveaxis(a, -1, 0).astype(np.float64)
    bx, by, bz = np.moveaxis(b, -1, 0).astype(np.float64)
    cross = np.sqrt((ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2)
    dot = ax * bx + ay * by + az * bz
    # atan2 is exact for equal vectors, where the arccos of a rounded dot product is off by hundredths of a degree.
    angles: Float64 = np.degrees(np.arctan2(cross, dot))
    # Of finite vectors, only those with a vector of length 0 give two zeros.
    return np.where((cross == 0) & (dot == 0), 90.0, angles)


def _check_classes(where: str, classes: npt.NDArray[np.intp], last: int) -> None:
    if classes.size and (classes.min() < 0 or classes.max() > last):
        wrong = classes[(classes < 0) | (classes > last)][0]
        raise DataError(f"{where} holds the value {wrong}; expected 0 to {last}, or {IGNORE}")
