"""Measure the shipped weights of a model of the zoo in float32 on the rooms that judge int8: models/NAME/float32.json.

    python tools/ship_float32.py NAME

`emadeploy export` compares int8 with float32 on the same frames. It uses these records where weights, size, tasks and
rooms are those that they were measured of, and measures by itself otherwise. To be run again when weights are shipped,
or the generator of rooms or a metric changes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from emadeploy import __version__, zoo
from emadeploy.cli.exporting.judge import COUNTS, rooms_of
from emadeploy.cli.exporting.reference import SHIPPED, checksum, facts_of, measure
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import EmadeployError, SpecError, one_line
from emadeploy.data.source import open_data
from emadeploy.evaluate.records import write_record
from emadeploy.export.source import Source, open_source
from emadeploy.runtime.machine import cpu_model, usable_cores

SCHEMA = 1


def records(source: Source, counts: Sequence[int]) -> dict[str, Any]:
    """Return the content of the file: the record of ``source`` on so many rooms each. Raises EmadeployError."""
    if source.spec.data != "rooms":
        raise SpecError(f"model {source.spec.name!r} is made for {source.spec.data!r}: only rooms are made everywhere")
    tasks = source.spec.task_names
    entries = []
    for count in counts:
        with progress("rendering") as bar:
            data = open_data(rooms_of(source.spec, count), split="val", workers=usable_cores(), progress=bar)
        with tempfile.TemporaryDirectory() as folder:
            record = measure(source, tasks, data, Path(folder), print)
        facts = facts_of(source, tasks, data)
        machine = f"{cpu_model()} (onnxruntime {onnxruntime.__version__}, emadeploy {__version__})"
        entries.append({"of": facts, "on": machine, "sha256": checksum(facts, record), "record": record})
    return {"schema": SCHEMA, "records": entries}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="a model of the zoo that ships with weights")
    asked = parser.parse_args(arguments)
    path = zoo.assets("models") / asked.name / SHIPPED
    try:
        write_record(path, records(open_source(asked.name), COUNTS))
    except EmadeployError as error:
        print(f"ship_float32: {one_line(error)}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
