"""Edges matched with a tolerance: odsF, the F-measure of BSDS at the threshold that is best for the whole data set.

The protocol is that of the benchmark's ``correspondPixels`` (Martin, Fowlkes and Malik, Learning to Detect Natural
Image Boundaries, PAMI 2004) as HED and its successors run it.

1. The prediction goes through non-maximum suppression once (:func:`~emadeploy.evaluate.thinning.suppress`), as papers
   whose networks answer broad edges do before the toolbox sees them.
2. At each of 99 thresholds, 0.01 to 0.99, what is left is thinned morphologically
   (:func:`~emadeploy.evaluate.thinning.thin`), as the toolbox does: suppression alone keeps plateaus, thinning alone
   follows the middle of a broad response and not its crest. The truth is taken as it is: where its lines are two
   pixels wide, a prediction of one pixel cannot find all of it, and 100 is out of reach.
3. Predicted and true pixels are matched one to one, at most 0.0075 of the picture's diagonal apart, so that as many as
   possible have a partner. The toolbox minimises the distances plus 100 times the tolerance for every pixel without a
   partner; the price makes the number of pairs come first, and the number is all that counts where each picture has
   one truth. It is exact here, and approximate there.
4. Pairs, predicted and true pixels are summed over all pictures; precision and recall are ratios of the sums, and the
   F-measure is the best along the straight lines between neighbouring thresholds, as the toolbox has it.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.probabilities import judged
from emadeploy.evaluate.tallies import IGNORE, Array, Float64
from emadeploy.evaluate.thinning import Mask, suppress, thin

#: How far apart a predicted and a true pixel may be, as a share of the picture's diagonal.
TOLERANCE = 0.0075
THRESHOLDS = np.arange(1, 100) / 100
#: Points between two thresholds, both included, at which the F-measure is taken.
_BETWEEN = 100
# Pixels whose surroundings are searched at once: they are copied.
_CHUNK = 4096
# A float32 of 0.29 is a little under 0.29.
_NUDGE = 1e-6


class BoundaryTally:
    """Edge probabilities (H, W) against truth uint8 0 or 1, 255 ignored: pixels there are neither predicted nor true.

    ``state`` (3, 99): pairs, predicted pixels and true pixels by threshold.
    """

    def __init__(self, task: TaskSpec) -> None:
        """Make the tally of no frame; raises BackendMissing where scipy is not installed."""
        if not has_matcher():
            raise BackendMissing.of("odsF of edges", "scipy", "eval")
        self.state: Float64 = np.zeros((3, len(THRESHOLDS)))

    def update(self, predicted: Array, truth: Array) -> int:
        """Add one frame; return how many pixels were judged. Raises DataError as ``judged`` does."""
        true, _ = judged(predicted, truth)
        true_HW = truth == 1
        positives = int(np.count_nonzero(true_HW))
        crests_HW = suppress(np.where(truth == IGNORE, 0, predicted))
        radius = TOLERANCE * float(np.hypot(*truth.shape))
        before, row = -1, (0, 0)
        for index, threshold in enumerate(THRESHOLDS):
            chosen_HW = crests_HW >= threshold - _NUDGE
            count = int(np.count_nonzero(chosen_HW))
            # Of nested sets, those of the same size are the same.
            if count != before:
                lines_HW = thin(chosen_HW)
                before, row = count, (pairs(lines_HW, true_HW, radius), int(np.count_nonzero(lines_HW)))
            self.state[:, index] += (*row, positives)
        return int(true.size)

    def compute(self) -> dict[str, float]:
        """Return ``odsf``, percent; absent where no pixel is an edge in truth."""
        matched, predicted, true = self.state
        if not true.any():
            return {}
        precision = np.divide(matched, predicted, out=np.zeros_like(matched), where=predicted > 0)
        recall = matched / true
        share = np.linspace(0, 1, _BETWEEN)[:, None]
        p, r = (share * values[1:] + (1 - share) * values[:-1] for values in (precision, recall))
        f = np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)
        return {"odsf": float(100 * f.max())}


def has_matcher() -> bool:
    """Whether scipy, which matches pixels, is installed."""
    return importlib.util.find_spec("scipy") is not None


def pairs(a_HW: Mask, b_HW: Mask, radius: float) -> int:
    """Return how many pixels of ``a_HW`` and ``b_HW`` can have a partner in the other at once; needs scipy.

    Each has at most one, at most ``radius`` pixels away (Euclidean): a maximum matching of the bipartite graph of all
    pairs within the radius.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    partners, degrees = _within(a_HW, b_HW, radius)
    if not partners.size:
        return 0
    # A maximum matching is a maximum flow of whole units: source -> a -> b -> sink, in the order of their numbers.
    # Dinic's algorithm finds it as Hopcroft and Karp's does. scipy's `maximum_bipartite_matching` is the latter without
    # its marks of dead ends, and takes seconds for the lines of one picture (github.com/scipy/scipy/issues/26147).
    count_a, count_b = len(degrees), np.count_nonzero(b_HW)
    sink = count_a + count_b + 1
    targets = np.concatenate([np.arange(1, count_a + 1), partners + count_a + 1, np.full(count_b, sink)])
    starts = np.cumsum(np.concatenate([[0, count_a], degrees, np.ones(count_b, np.intp), [0]]))
    graph = csr_matrix(
        (np.ones(len(targets), np.int32), targets.astype(np.int32), starts.astype(np.int32)), shape=(sink + 1, sink + 1)
    )
    return int(maximum_flow(graph, 0, sink, method="dinic").flow_value)


def _within(a_HW: Mask, b_HW: Mask, radius: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the numbers of the pixels of b around each pixel of a, one after the other, and how many each has.

    Pixels of both are numbered row by row.
    """
    reach = int(radius)
    # The number of each pixel of b, -1 where there is none, with a margin that steps may leave the picture for.
    number = np.full((a_HW.shape[0] + 2 * reach, a_HW.shape[1] + 2 * reach), -1, np.intp)
    inside = number[reach : reach + a_HW.shape[0], reach : reach + a_HW.shape[1]]
    inside[b_HW] = np.arange(np.count_nonzero(b_HW))
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    steps = steps[:, (steps**2).sum(axis=0) <= radius**2]
    ahead = (steps[0] + reach) * number.shape[1] + steps[1] + reach  # from a pixel without margin to one with it
    rows, columns = np.nonzero(a_HW)
    places = rows * number.shape[1] + columns
    partners, degrees = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for start in range(0, len(places), _CHUNK):
        found = number.ravel()[places[start : start + _CHUNK, None] + ahead]
        near = found >= 0
        partners.append(found[near])
        degrees.append(near.sum(axis=1))
    return np.concatenate(partners), np.concatenate(degrees)
