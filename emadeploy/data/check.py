"""A first look at a data set: every file read once, what is in it counted, what cannot be read named.

`data check --json` writes the record of :func:`check` as it is:

    {"schema": 1, "data": ..., "frames": n, "readable": n,
     "sizes": {"288x384": n, ...},                                  height x width of the images
     "image": {"mean": [r, g, b], "std": [r, g, b]},                0 to 1
     "tasks": {"semseg": {"frames": n, "invalid": share, "classes": {"bed": share, ...}},
               "depth": {"frames": n, "invalid": share, "unit": ..., "min": , "max": , "mean": },
               "normals": {"frames": n, "invalid": share, "mean": [x, y, z], "not_unit": share},
               "edge": {"frames": n, "invalid": share, "positive": share}, ...},
     "corrupt": ["frame 3: .../3.npy cannot be read ...", ...]}

Shares are of pixels: of all with a truth's map for "invalid", of the valid ones for the others. What no pixel tells
is null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.sample import IGNORE, Dataset, Sample

SCHEMA = 1
#: Called after each frame with the number done and the number of all.
Progress = Callable[[int, int], None]
#: Called with each sample that could be read.
Look = Callable[[Sample], None]

# How far from 1 the length of a normal may be.
_UNIT = 0.02


def check(data: Dataset, progress: Progress | None = None, look: Look | None = None) -> dict[str, Any]:
    """Read every sample of ``data`` and return the record; ``look`` sees each that can be read."""
    sizes: Counter[str] = Counter()
    image = _Channels()
    tallies = {spec.name: _TALLIES[spec.kind](spec) for spec in data.specs}
    corrupt = []
    for index in range(len(data)):
        try:
            sample = data[index]
        except DataError as error:
            corrupt.append(f"frame {index}: {error}")
        else:
            sizes[f"{sample.image.shape[0]}x{sample.image.shape[1]}"] += 1
            image.update(sample.image.reshape(-1, 3) / 255)
            for name, truth in sample.truth.items():
                tallies[name].update(truth)
            if look is not None:
                look(sample)
        if progress is not None:
            progress(index + 1, len(data))
    return {
        "schema": SCHEMA,
        "data": data.description,
        "frames": len(data),
        "readable": len(data) - len(corrupt),
        "sizes": dict(sizes.most_common()),
        "image": {"mean": image.mean(), "std": image.std()},
        "tasks": {name: tally.record() for name, tally in tallies.items()},
        "corrupt": corrupt,
    }


class _Channels:
    """Mean and standard deviation of rows of three numbers."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, np.zeros(3), np.zeros(3)

    def update(self, rows: npt.NDArray[Any]) -> None:
        self.count += len(rows)
        self.sum += rows.sum(axis=0, dtype=np.float64)
        self.squares += np.square(rows, dtype=np.float64).sum(axis=0)

    def mean(self) -> list[float] | None:
        return (self.sum / self.count).tolist() if self.count else None

    def std(self) -> list[float] | None:
        if not self.count:
            return None
        return np.sqrt(np.maximum(self.squares / self.count - (self.sum / self.count) ** 2, 0)).tolist()


class _Tally:
    """What a task's truths hold; a kind of task says which pixels are valid, and what else is worth telling."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.frames = self.pixels = self.valid = 0

    def update(self, truth: npt.NDArray[Any]) -> None:
        valid_HW = self.valid_of(truth)
        self.frames += 1
        self.pixels += valid_HW.size
        self.valid += int(valid_HW.sum())
        self.add(truth[valid_HW])

    def record(self) -> dict[str, Any]:
        invalid = 1 - self.valid / self.pixels if self.pixels else None
        return {"frames": self.frames, "invalid": invalid, **self.told()}

    def share(self, count: float) -> float | None:
        """Return a share of the valid pixels."""
        return float(count) / self.valid if self.valid else None

    def valid_of(self, truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return truth != IGNORE

    def add(self, valid: npt.NDArray[Any]) -> None:
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        raise NotImplementedError


class _Labels(_Tally):
    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.counts = np.zeros(256, np.int64)

    def add(self, valid: npt.NDArray[Any]) -> None:
        self.counts += np.bincount(valid, minlength=256)

    def told(self) -> dict[str, Any]:
        names = self.spec.class_names or [f"class {index}" for index in range(self.spec.channels)]
        return {"classes": {name: self.share(self.counts[index]) for index, name in enumerate(names)}}


class _Depth(_Tally):
    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.low, self.high, self.sum = np.inf, -np.inf, 0.0

    def valid_of(self, truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return truth > 0

    def add(self, valid: npt.NDArray[Any]) -> None:
        if valid.size:
            self.low, self.high = min(self.low, float(valid.min())), max(self.high, float(valid.max()))
            self.sum += float(valid.sum(dtype=np.float64))

    def told(self) -> dict[str, Any]:
        low, high = (self.low, self.high) if self.valid else (None, None)
        return {"unit": self.spec.unit, "min": low, "max": high, "mean": self.share(self.sum)}


class _Normals(_Tally):
    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.channels, self.not_unit = _Channels(), 0

    def valid_of(self, truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return truth.any(axis=2)

    def add(self, valid: npt.NDArray[Any]) -> None:
        self.channels.update(valid)
        self.not_unit += int((np.abs(np.linalg.norm(valid, axis=1) - 1) > _UNIT).sum())

    def told(self) -> dict[str, Any]:
        return {"mean": self.channels.mean(), "not_unit": self.share(self.not_unit)}


class _Binary(_Tally):
    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.positive = 0

    def add(self, valid: npt.NDArray[Any]) -> None:
        self.positive += int(valid.sum())

    def told(self) -> dict[str, Any]:
        return {"positive": self.share(self.positive)}


_TALLIES: dict[str, type[_Tally]] = {
    "semseg": _Labels,
    "human_parts": _Labels,
    "depth": _Depth,
    "normals": _Normals,
    "edge": _Binary,
    "saliency": _Binary,
}
