"""``dataset.json``: what `emadeploy data convert` made, beside its ``train/`` and ``val/``, for readers and for people.

A folder without it is the published release, whose facts the readers know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.plain import as_list, as_mapping, is_a, known_fields, make, one_of, require, to_plain
from emadeploy.contract.tasks import CLASS_SETS, KINDS

NAME = "dataset.json"
SCHEMA = 1


@dataclass(frozen=True)
class DatasetRecord:
    """What was made of which data set. ``classes`` names a set of CLASS_SETS; ``size`` is (height, width).

    ``normals_frame`` is the frame of the normals, none where there are none. ``notes`` tell, by map, how it was
    made: unit, source, what is not known.
    """

    dataset: str
    classes: str
    size: tuple[int, int]
    normals_frame: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        require(self.schema == SCHEMA, f"schema {self.schema} is not {SCHEMA}: made by another version of emadeploy")
        one_of("class set", self.classes, tuple(CLASS_SETS))
        fits = len(self.size) == 2 and all(is_a(int, extent) and extent > 0 for extent in self.size)
        require(fits, f"size {self.size} is not height and width")
        if self.normals_frame is not None:
            one_of("normals_frame", self.normals_frame, KINDS["normals"].frames)

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(to_plain(self), indent=2) + "\n"


def read_record(directory: Path, dataset: str) -> DatasetRecord | None:
    """Return the record in ``directory``, or None where there is no file.

    Raises DataError where the file is damaged, or is the record of another data set than ``dataset``.
    """
    path = directory / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    try:
        values: dict[str, Any] = known_fields(DatasetRecord, as_mapping("the record", json.loads(text)))
        values["size"] = tuple(as_list("size", values.get("size", ())))
        record = make(DatasetRecord, values)
    except (ValueError, TypeError, SpecError) as error:
        raise DataError(f"{path} is not a record that `emadeploy data convert` wrote: {error}") from None
    if record.dataset != dataset:
        raise DataError(f"{path} is of {record.dataset}; open the folder as {record.dataset}:{directory}")
    return record
