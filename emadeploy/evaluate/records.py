"""The record of an evaluation on disk: what `eval --json` writes and `--baseline` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import DataError
from emadeploy.contract.files import write_file
from emadeploy.evaluate.delta import delta_m, task_gains
from emadeploy.evaluate.run import SCHEMA


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` as json, in one step; raises DataError where the place cannot be written."""
    write_file(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Return the record at ``path``; raises DataError where it is not one that `eval --json` wrote."""
    wanted = "expected a file written by `emadeploy eval --json`"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {wanted}") from None
    except ValueError as error:
        raise DataError(f"{path} is not json ({error}); {wanted}") from None
    if not isinstance(record, dict) or not isinstance(record.get("tasks"), dict):
        raise DataError(f"{path} has no metrics by task; {wanted}")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {record.get('schema')!r}, this version of emadeploy reads {SCHEMA}")
    for task, row in record["tasks"].items():
        if not isinstance(row, dict) or not all(isinstance(value, (int, float)) for value in row.values()):
            raise DataError(f"{path}: the metrics of {task!r} are not numbers by name; {wanted}")
    return record


def check_same_data(baseline: Mapping[str, Any], data: str, frames: int) -> None:
    """Raise DataError where the record ``baseline`` was not measured on ``frames`` frames of ``data``."""
    if frames != baseline.get("frames") or not _same_data(data, str(baseline.get("data"))):
        theirs, ours = f"{baseline.get('frames')} frames of {baseline.get('data')}", f"{frames} frames of {data}"
        raise DataError(f"the baseline was measured on {theirs}, this on {ours}; the gain needs the same data")


def with_gain(record: Mapping[str, Any], baseline: Mapping[str, Any], over: str = "primary") -> dict[str, Any]:
    """Return ``record`` with its gain over ``baseline``, another record of the same data.

    Adds ``delta_m``, ``delta_m_over`` and ``gains`` (per task), percent. Raises DataError where the two were measured
    on other data, or as :func:`emadeploy.evaluate.delta.task_gains` does.
    """
    check_same_data(baseline, record["data"], record["frames"])
    gains = task_gains(record["tasks"], baseline["tasks"], over)
    for task in gains:
        # Records of earlier versions do not say.
        ours, theirs = (r.get("task_frames", {}).get(task) for r in (record, baseline))
        if ours != theirs and None not in (ours, theirs):
            raise DataError(
                f"the baseline's {task} was measured on {theirs} frames of {baseline['data']}, this one's on {ours} of "
                f"{record['data']}; the gain needs the same data"
            )
    total = delta_m(record["tasks"], baseline["tasks"], over)
    return {**record, "delta_m": total, "delta_m_over": over, "gains": gains}


def _same_data(a: str, b: str) -> bool:
    # The text of made rooms says which they are; a folder may lie elsewhere on another machine.
    kind_a, kind_b = a.partition(":")[0], b.partition(":")[0]
    return a == b or (kind_a == kind_b and kind_a != "rooms")
