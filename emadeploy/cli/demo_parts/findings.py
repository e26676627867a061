"""The record of a demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emadeploy.bench.rows import Row
from emadeploy.contract.spec import ModelSpec

#: Name of a graph -> its form of CTAL, as `export --ctal` takes it. Ratios are to the first.
GRAPHS = {"published": "affinity", "rewritten": "exact"}


@dataclass(frozen=True)
class Findings:
    """What the demo measured. ``rows`` and ``parameters`` are in the order of GRAPHS.

    ``room_data``: DATA of the rooms. ``photograph``: depth metrics of the photograph with a truth, by graph.
    ``agreement``: of the rewritten graph with the published one, by task, over ``frame_count`` frames.
    """

    spec: ModelSpec
    untrained: bool
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: tuple[Row, ...]
    parameters: tuple[int, ...]
    room_data: str
    room_count: int
    frame_count: int
    photograph: Mapping[str, Mapping[str, float]]
    agreement: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the record for `--json`: that of `bench --json`, and more."""
        rows = zip(self.rows, self.parameters, strict=True)
        return {
            "schema": 1,
            "model": self.spec.name,
            "untrained": self.untrained,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "data": self.room_data,
            "frames": self.room_count,
            "rows": [{**row.to_dict(), "parameters": parameters} for row, parameters in rows],
            "photograph": {"name": "middlebury-2014-motorcycle", "depth": dict(self.photograph)},
            "agreement": {"frames": self.frame_count, "tasks": dict(self.agreement)},
        }
