"""Tallies of probabilities (H, W) in [0, 1] against truth uint8 0 or 1, 255 ignored: edges and saliency.

One threshold serves all frames, and a pixel counts where it is: no tolerance for edges that are a pixel off, so ``f1``
is not the odsF of BSDS, which :mod:`emadeploy.evaluate.boundaries` measures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.tallies import IGNORE, Array, Float64, check_classes

#: Thresholds tried for edges: 0, 1/1000, ... 1.
EDGE_STEPS = 1000
#: Thresholds tried for saliency: 1/255, 2/255, ... 1, the values of an 8-bit map that are not black.
SALIENCY_STEPS = 255
#: beta^2 of the F-measure of saliency: Achanta et al., Frequency-tuned Salient Region Detection, CVPR 2009.
SALIENCY_BETA2 = 0.3
# Thresholds of the IoU of saliency, 0.2, 0.25, ... 0.9: Maninis et al., Attentive Single-Tasking of Multiple Tasks,
# CVPR 2019, whose tables MTI-Net and others continue.
_IOU_STEPS = 20
_IOU_THRESHOLDS = slice(4, 19)
# Puts 0.29 (0.28999... in binary) into the bin that begins at 0.29.
_NUDGE = 1e-4


class BestFTally:
    """The best F-measure over all thresholds, of the pixels of all frames together.

    Edges: ``f1``. Saliency: ``maxf`` as ATRC and InvPT have it: true and false positives are added up over the data
    set, and one F-measure is taken of the sums. Their code tries 19 thresholds, 0.05 apart; ours, 255, find a maximum
    that is a little higher if anything. (MTI-Net averages precision and recall of the pictures instead, with beta^2 =
    1: another number.)
    ``state`` (2, steps + 1): histograms of the predictions where the truth is 0 and where it is 1.
    """

    def __init__(self, task: TaskSpec) -> None:
        saliency = task.kind == "saliency"
        self.name, self.beta2 = ("maxf", SALIENCY_BETA2) if saliency else ("f1", 1.0)
        self.steps, self.lowest = (SALIENCY_STEPS, 1) if saliency else (EDGE_STEPS, 0)
        self.state: Float64 = np.zeros((2, self.steps + 1))

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError as ``judged`` does."""
        true, guess = judged(predicted, truth)
        bins = (guess * self.steps + _NUDGE).astype(np.intp)
        self.state += _histograms(true, bins, self.steps + 1)
        return int(true.size)

    def compute(self) -> dict[str, float]:
        """Return ``f1`` (edges) or ``maxf`` (saliency, beta^2 = 0.3), percent; absent where no pixel is positive."""
        positives = self.state[1].sum()
        if not positives:
            return {}
        false_positives, true_positives = _at_or_above(self.state)[:, self.lowest :]
        # (1 + b) P R / (b P + R), with P = tp / (tp + fp) and R = tp / positives, is free of 0 / 0 in this form.
        f = (1 + self.beta2) * true_positives / (self.beta2 * positives + true_positives + false_positives)
        return {self.name: float(100 * f.max())}


class SalientTally:
    """Saliency, picture by picture: the IoU of what is salient, and the mean absolute error.

    Both are means over *pictures*, as the literature has them: the IoU at the one threshold of 0.2, 0.25, ... 0.9 that
    is best for the mean over all pictures (Maninis et al., CVPR 2019; a picture where nothing is salient and nothing
    found has 1), the error after Perazzi et al., Saliency Filters, CVPR 2012. A picture whose truth is ignored
    everywhere is none.
    ``state``: pictures, the sum of their errors, then the sums of their IoU by threshold.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.state: Float64 = np.zeros(2 + len(range(_IOU_STEPS)[_IOU_THRESHOLDS]))

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError as ``judged`` does."""
        true, guess = judged(predicted, truth)
        if not true.size:
            return 0
        # What is strictly above k / 20 is at or above level k + 1.
        levels = np.ceil(guess * _IOU_STEPS - _NUDGE).astype(np.intp)
        above = _at_or_above(_histograms(true, levels, _IOU_STEPS + 1))[:, 1:][:, _IOU_THRESHOLDS]
        union, hits = above[0] + np.count_nonzero(true), above[1]
        iou = np.divide(hits, union, out=np.ones_like(hits), where=union > 0)
        self.state += [1, np.abs(guess - true).mean(), *iou]
        return int(true.size)

    def compute(self) -> dict[str, float]:
        """Return ``miou``, percent, and ``mae``, in [0, 1]."""
        pictures, errors, *ious = self.state.tolist()
        return {"miou": 100 * max(ious) / pictures, "mae": errors / pictures} if pictures else {}


def judged(predicted: Array, truth: Array) -> tuple[npt.NDArray[np.intp], Float64]:
    """Return truth (N,) 0 or 1 and prediction (N,) in [0, 1] of the pixels whose truth is not 255.

    Raises DataError for a prediction outside [0, 1] or a truth other than 0, 1 and 255.
    """
    valid_HW = truth != IGNORE
    true = truth[valid_HW].astype(np.intp)
    guess = predicted[valid_HW].astype(np.float64)
    check_classes("truth", true, 1)
    if not ((guess >= 0) & (guess <= 1)).all():
        raise DataError("the prediction is not a probability: values outside [0, 1] or not finite")
    return true, guess


def _histograms(true: npt.NDArray[np.intp], bins: npt.NDArray[np.intp], count: int) -> Float64:
    """Return (2, count): how many pixels of each bin are 0 and 1 in truth."""
    return np.bincount(true * count + bins, minlength=2 * count).reshape(2, count).astype(np.float64)


def _at_or_above(histograms: Float64) -> Float64:
    """Return, for every bin, how many pixels are in it or in one above it: (2, count) from (2, count)."""
    return np.cumsum(histograms[:, ::-1], axis=1)[:, ::-1]
