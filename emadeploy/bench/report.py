"""The report of a bench on disk: what `bench --json` writes, and `--compare` and `--html` read."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from emadeploy.bench.rows import SCHEMA, Report, Row
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.plain import as_list, as_mapping, is_a, known_fields, make, require, spec_path
from emadeploy.evaluate.records import write_record

_WANTED = "expected a file written by `emadeploy bench --json`"
_SPREADS = ("latency_ms", "end_to_end_ms")
_INTERVALS = ("speedup_ci", "speedup_end_to_end_ci")
_MAPPINGS = ("stages_ms", "power", "mode", "warm_up", "conditions", "engine", "precision", "tasks", "samples_ms")
_FIELDS = frozenset(field.name for field in fields(Row))


def write_report(path: Path, report: Report) -> None:
    """Write ``report`` as json, in one step; raises DataError where the place cannot be written."""
    write_record(path, report.to_dict())


def read_report(path: Path) -> Report:
    """Return the report at ``path``; keys that this version does not know are left out.

    Raises DataError where the file cannot be read, is not a report, or one of another schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"{path} cannot be read: {reason}; {_WANTED}") from None
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not json ({error}); {_WANTED}") from None
    try:
        return report_of(data)
    except SpecError as error:
        raise DataError(f"{path}: {error}; {_WANTED}") from None


def report_of(data: object) -> Report:
    """Return the report that plain ``data`` holds, checked; raises SpecError naming the place that does not fit."""
    data = as_mapping("the report", data)
    require("rows" in data and "schema" in data, "it has no 'schema' and 'rows'")
    if data["schema"] != SCHEMA:
        raise SpecError(f"schema {data['schema']!r}: this version of emadeploy reads {SCHEMA}")
    rows = [_row(index, row) for index, row in enumerate(as_list("rows", data["rows"]))]
    names = [row.name for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, f"two rows are named {twice!r}")
    machine, settings = (as_mapping(key, data.get(key, {})) for key in ("machine", "settings"))
    return Report(machine, settings, rows)


def _row(index: int, data: object) -> Row:
    data = as_mapping(f"row {index}", data)
    with spec_path(f"row {data.get('name', index)!r}"):
        values = known_fields(Row, {key: value for key, value in data.items() if key in _FIELDS})
        for name in _SPREADS:
            _check_spread(name, values.get(name))
        for name in _INTERVALS:
            _check_interval(name, values.get(name))
        for name in _MAPPINGS:
            as_mapping(name, values.get(name) or {})
        for task, metrics in (values.get("tasks") or {}).items():
            _check_numbers(f"tasks.{task}", metrics)
        for name in ("stages_ms", "precision"):
            kind, called = (str, "text") if name == "precision" else (float, "a number")
            for key, value in (values.get(name) or {}).items():
                require(is_a(kind, value), f"{name}.{key} {value!r} is not {called}")
        for what, samples in (values.get("samples_ms") or {}).items():
            numbers = as_list(f"samples_ms.{what}", samples)
            require(all(is_a(float, value) for value in numbers), f"samples_ms.{what} holds what is not a number")
        notes = as_list("notes", values.get("notes", ()))
        require(all(isinstance(note, str) for note in notes), "notes are not lines of text")
        return make(Row, values)


def _check_spread(name: str, data: object) -> None:
    if data is None:
        return
    found = as_mapping(name, data)
    n = found.get("n")
    require(n is None or (is_a(int, n) and n > 0), f"{name}.n {n!r} is not a number of calls")
    for key in ("p50", "p90", "p99"):
        value = found.get(key)
        optional = key != "p50"
        told = is_a(float, value) and value > 0  # type: ignore[operator]
        require(told or (optional and value is None), f"{name}.{key} {value!r} is not a time above 0")
        _check_interval(f"{name}.{key}_ci", found.get(f"{key}_ci"))


def _check_interval(name: str, data: object) -> None:
    if data is None:
        return
    ends = as_list(name, data)
    fits = len(ends) == 2 and all(is_a(float, end) for end in ends) and ends[0] <= ends[1]
    require(fits, f"{name} {list(ends)} is not [low, high]")


def _check_numbers(name: str, data: object) -> None:
    for key, value in as_mapping(name, data).items():
        require(is_a(float, value), f"{name}.{key} {value!r} is not a number")


def _refuse_constant(name: str) -> NoReturn:
    # Python writes and reads them, json has none of them, and no measurement is one.
    raise ValueError(f"it holds {name}")
