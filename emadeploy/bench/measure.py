"""Artifacts measured side by side, a call of each per round: what `demo` and the tools need of the bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emadeploy.bench.entrants import CHILD, entrant
from emadeploy.bench.race import ROUNDS, Effort, Progress, race
from emadeploy.bench.rows import Row

__all__ = ["CHILD", "ROUNDS", "measure"]


def measure(
    artifacts: Mapping[str, Path],
    frame_HW3: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
    child: Sequence[str] = CHILD,
) -> list[Row]:
    """Return a row for each of ``artifacts`` (name -> folder), in order, measured on ``frame_HW3``, uint8 RGB.

    Each is called once per round. Every artifact gets the same ``threads``, by default the cores of this process; one
    that fails has that as its ``status``, as in :func:`race`; ratios are to the first. Raises SpecError for less than
    one round or thread, ArtifactError where there is no manifest.
    """
    effort = Effort(rounds=rounds)
    entrants = [entrant(name, path, frame_HW3, threads=threads, child=child) for name, path in artifacts.items()]
    return race(entrants, effort, progress=progress)
