"""Check that ratios of `emadeploy bench` hold: run it twice, and compare them row by row.

    python tools/check_ratios.py ARTIFACT ARTIFACT [...] [--within 0.05] [--min-time 3] [--pause 0] [--json FILE]

Ends with exit status 1 where a ratio of the second run, network or end to end, is further from that of the first than
``--within``, or a row was not measured. Run it on a machine as busy as you like: that is the point.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emadeploy.bench.rows import Report, Row
from emadeploy.cli.bench_parts.measuring import measure_here
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.contract.errors import DataError, EmadeployError, one_line

WITHIN = 0.05
_RATIOS = {"network": "speedup", "end to end": "speedup_end_to_end"}


@dataclass(frozen=True)
class Held:
    """A ratio in both runs. ``moved``: how far the second is from the first, as a share of it."""

    name: str
    what: str
    first: float
    second: float

    @property
    def moved(self) -> float:
        """The share."""
        return self.second / self.first - 1


def held(first: Report, second: Report) -> list[Held]:
    """Return the ratios of both runs. Raises DataError where a row was not measured, or nothing can be compared."""
    found = [each for one, two in zip(first.rows, second.rows, strict=True) for each in _of_row(one, two)]
    if not found:
        raise DataError("no row has a ratio: give two artifacts that can be compared")
    return found


def _of_row(first: Row, second: Row) -> Iterator[Held]:
    for row in (first, second):
        if not row.measured:
            raise DataError(f"{row.name}: {row.status}")
    if first.name == first.against:
        return
    for what, field in _RATIOS.items():
        one, two = getattr(first, field), getattr(second, field)
        if one is not None and two is not None:
            yield Held(first.name, what, one, two)


def record(found: Sequence[Held], within: float) -> Mapping[str, Any]:
    """Return plain data for json."""
    ratios = [{"name": h.name, "what": h.what, "first": h.first, "second": h.second, "moved": h.moved} for h in found]
    return {"schema": 1, "within": within, "ratios": ratios, "holds": all(abs(h.moved) <= within for h in found)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench twice; 0 where every ratio holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", metavar="ARTIFACT", type=Path, nargs="+")
    parser.add_argument("--within", type=float, default=WITHIN, help=f"as a share [default: {WITHIN}]")
    parser.add_argument("--min-time", type=float, default=3.0, help="as emadeploy bench takes it [default: 3]")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between the runs [default: 0]")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    order = BenchOrder(artifacts=tuple(asked.artifacts), percentile=50, min_time_s=asked.min_time)
    try:
        first = measure_here(order)
        time.sleep(asked.pause)
        found = held(first, measure_here(order))
    except EmadeployError as error:
        print(f"check_ratios: {one_line(error)}", file=sys.stderr)
        return 1
    for each in found:
        verdict = "holds" if abs(each.moved) <= asked.within else "MOVED"
        print(
            f"{each.name}, {each.what}: {each.first:.3f}, then {each.second:.3f}: {100 * each.moved:+.1f} % {verdict}"
        )
    result = record(found, asked.within)
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
