"""Do two networks answer the same? The agreement of two sets of decoded maps, per task, without any truth.

`export` judges each graph against PyTorch with it, `compare` two artifacts or checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.evaluate.tallies import Array, Float64, LabelTally, angles_between

#: Name of a measure -> what it says, and its unit ('' for a ratio).
MEASURES = {
    "agreement": ("pixels of the same class", "%"),
    "miou": ("mIoU of the two", "%"),
    "rel_mean": ("relative difference, mean", ""),
    "rel_p99": ("relative difference, p99", ""),
    "mean": ("angle between, mean", "deg"),
    "p95": ("angle between, p95", "deg"),
    "mean_abs": ("difference of probabilities, mean", ""),
    "max_abs": ("difference of probabilities, largest", ""),
}

#: Depth under this (in the task's unit) is compared as if it were this: beside 0 every difference is infinite.
DEPTH_FLOOR = 1e-3
#: Quantiles are exact to one bin: 1.2 %.
_BINS_PER_DECADE = 200
_LOW, _HIGH = 1e-6, 1e6


class _Tally(Protocol):
    def update(self, candidate: Array, reference: Array) -> Float64:
        """Add one frame; return how far each pixel differs."""

    def compute(self) -> dict[str, float]: ...


class Parity:
    """The agreement of a candidate's maps with a reference's, added up frame by frame.

    | task | what ``compute`` says of it |
    |---|---|
    | semseg, human_parts | ``agreement``: pixels of the same class, percent; ``miou``: the reference taken as truth |
    | depth | ``rel_mean``, ``rel_p99``: the difference, relative to the reference: mean and 99th percentile |
    | normals | ``mean``, ``p95``: the angle between them, degrees: mean and 95th percentile |
    | edge, saliency | ``mean_abs``, ``max_abs``: the difference of the probabilities |
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self._tallies: dict[str, _Tally] = {task.name: _TALLIES[task.kind](task) for task in tasks}

    def update(self, candidate: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, Float64]:
        """Add one frame: decoded maps by task. Return how far each pixel (H, W) differs, by task.

        Labels: 0 the same, 1 another class; depth: relative to the reference; normals: degrees; edge and saliency:
        the difference of the probabilities. Raises DataError where a task is missing or maps cannot be compared.
        """
        differences = {}
        for name, tally in self._tallies.items():
            for whose, maps in (("the candidate", candidate), ("the reference", reference)):
                if name not in maps:
                    raise DataError(f"{whose} has no {name!r}; it has {', '.join(maps) or 'no map at all'}")
                if not np.isfinite(maps[name]).all():
                    raise DataError(f"{name}: {whose} holds values that are not finite")
            if candidate[name].shape != reference[name].shape:
                raise DataError(
                    f"{name}: the candidate has shape {candidate[name].shape}, the reference {reference[name].shape}"
                )
            try:
                differences[name] = tally.update(candidate[name], reference[name])
            except DataError as error:
                raise DataError(f"{name}: {error}") from None
        return differences

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the agreement by task and name; a task is absent before the first frame."""
        computed = {name: tally.compute() for name, tally in self._tallies.items()}
        return {name: values for name, values in computed.items() if values}


def raw_error(a: Array, b: Array) -> float:
    """Return the relative L2 error ``|a - b| / |b|`` of raw maps, in float64; ``inf`` where either is not finite.

    Infinity, unlike NaN, fails every "is at most" test. Raises DataError where shapes differ.
    """
    if a.shape != b.shape:
        raise DataError(f"raw maps of shape {a.shape} and {b.shape} cannot be compared")
    a, b = a.astype(np.float64), b.astype(np.float64)
    error, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    if not (math.isfinite(error) and math.isfinite(norm)):
        return math.inf
    if norm == 0:
        return math.inf if error else 0.0
    return error / norm


class _Labels:
    def __init__(self, task: TaskSpec) -> None:
        self.pixels = self.same = 0
        self.confusion = LabelTally(task)

    def update(self, candidate: Array, reference: Array) -> Float64:
        self.confusion.update(candidate, reference)
        # Counted apart: the confusion matrix leaves out where the reference has no answer (255), agreement does not.
        different = candidate != reference
        self.pixels += different.size
        self.same += different.size - int(np.count_nonzero(different))
        return different.astype(np.float64)

    def compute(self) -> dict[str, float]:
        if not self.pixels:
            return {}
        judged = self.confusion.compute()
        miou = {"miou": judged["miou"]} if judged else {}
        return {"agreement": 100 * self.same / self.pixels, **miou}


class _Depth:
    def __init__(self, task: TaskSpec) -> None:
        self.errors = _Distribution()

    def update(self, candidate: Array, reference: Array) -> Float64:
        relative: Float64 = np.abs(candidate.astype(np.float64) - reference) / np.maximum(reference, DEPTH_FLOOR)
        self.errors.add(relative)
        return relative

    def compute(self) -> dict[str, float]:
        return {"rel_mean": self.errors.mean, "rel_p99": self.errors.quantile(0.99)} if self.errors.count else {}


class _Normals:
    def __init__(self, task: TaskSpec) -> None:
        self.angles = _Distribution()

    def update(self, candidate: Array, reference: Array) -> Float64:
        # Where neither has an answer, they agree.
        answered = candidate.any(axis=-1) | reference.any(axis=-1)
        angles: Float64 = np.where(answered, angles_between(candidate, reference), 0.0)
        self.angles.add(angles)
        return angles

    def compute(self) -> dict[str, float]:
        return {"mean": self.angles.mean, "p95": self.angles.quantile(0.95)} if self.angles.count else {}


class _Probability:
    def __init__(self, task: TaskSpec) -> None:
        self.pixels, self.sum, self.max = 0, 0.0, 0.0

    def update(self, candidate: Array, reference: Array) -> Float64:
        difference: Float64 = np.abs(candidate.astype(np.float64) - reference)
        self.pixels += difference.size
        self.sum += float(difference.sum())
        self.max = max(self.max, float(difference.max()))
        return difference

    def compute(self) -> dict[str, float]:
        return {"mean_abs": self.sum / self.pixels, "max_abs": self.max} if self.pixels else {}


_TALLIES: dict[str, Callable[[TaskSpec], _Tally]] = {
    "semseg": _Labels,
    "depth": _Depth,
    "normals": _Normals,
    "edge": _Probability,
    "saliency": _Probability,
    "human_parts": _Labels,
}


class _Distribution:
    """The mean, exactly, and quantiles, to a bin of a logarithmic histogram, of values from 0 up."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0
        bins = round(math.log10(_HIGH / _LOW) * _BINS_PER_DECADE)
        self.histogram: Float64 = np.zeros(bins + 1)  # the first bin: everything under _LOW

    def add(self, values: npt.NDArray[np.float64]) -> None:
        self.count += values.size
        self.sum += float(values.sum())
        logarithms = np.log10(np.maximum(values, _LOW / 2) / _LOW)
        bins = np.clip(np.floor(logarithms * _BINS_PER_DECADE).astype(np.intp) + 1, 0, self.histogram.size - 1)
        self.histogram += np.bincount(bins.ravel(), minlength=self.histogram.size)

    @property
    def mean(self) -> float:
        return self.sum / self.count

    def quantile(self, share: float) -> float:
        """Return the upper edge of the bin that holds the quantile; 0 where it is under _LOW."""
        index = int(np.searchsorted(np.cumsum(self.histogram), share * self.count))
        return float(_LOW * 10 ** (index / _BINS_PER_DECADE)) if index else 0.0
