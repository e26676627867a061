"""How many times faster one row is than another, from rounds in which both ran one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emadeploy.bench.modes import unlike
from emadeploy.bench.rows import Row, Timings
from emadeploy.bench.stats import paired_interval, paired_speedup

Rounds = Sequence[Sequence[Timings]]


def with_ratios(rows: Sequence[Row], rounds: Sequence[Rounds], against: str | None = None) -> list[Row]:
    """Return ``rows`` with their ratios to the row called ``against``, by default the first.

    ``rounds``: the calls of each row, by round. A row that ran in another mode than that one, or while that one did
    not, has ``incomparable`` in their place.
    """
    names = [row.name for row in rows]
    reference = names.index(against) if against is not None else 0
    return [_with_ratio(row, own, rows[reference], rounds[reference]) for row, own in zip(rows, rounds, strict=True)]


def _with_ratio(row: Row, own: Rounds, reference: Row, theirs: Rounds) -> Row:
    row = replace(row, against=reference.name)
    if not row.measured:
        return row
    if not reference.measured:
        return replace(row, incomparable=f"{reference.name} was not measured")
    different = unlike(row.mode, reference.mode)
    if different is not None:
        return replace(row, incomparable=different)
    network, whole = ((_by_round(theirs, stage), _by_round(own, stage)) for stage in ("inference", "total"))
    return replace(
        row,
        speedup=paired_speedup(*network),
        speedup_ci=paired_interval(*network),
        speedup_end_to_end=paired_speedup(*whole),
        speedup_end_to_end_ci=paired_interval(*whole),
    )


def known(reference: Rounds, candidate: Rounds, within: float) -> bool:
    """Whether the ratio of two engines, end to end, is known to a share of itself, with the usual confidence."""
    totals = _by_round(reference, "total"), _by_round(candidate, "total")
    interval = paired_interval(*totals)
    return interval is not None and interval[1] - interval[0] <= 2 * within * paired_speedup(*totals)


def _by_round(rounds: Rounds, stage: str) -> list[float]:
    return [float(np.median([call[stage] for call in calls])) for calls in rounds]
