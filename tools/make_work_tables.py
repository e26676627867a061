"""Write what the graphs of emanet-rooms take, layer by layer, for estimates without a graph at hand.

    python tools/make_work_tables.py [-o FOLDER]

Exports the published graph, and CTAL exact and on a basis for TensorRT in float16 and int8, into FOLDER (a temporary
one by default; what lies in FOLDER already is used again: five exports, some ten minutes) and writes
models/emanet-rooms/work.json. The published graph is written in float32, and as if all of it could be had in float16
and int8, which no export makes: in float16 it overflows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emadeploy.cli.exporting.make import make_artifact
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.errors import ArtifactError, EmadeployError, one_line
from emadeploy.contract.files import write_file
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.work import Work, to_json
from emadeploy.export.stage import Wanted
from emadeploy.work.artifact import read_work

SCHEMA = 1
MODEL = "emanet-rooms"
OUTPUT = Path(__file__).parents[1] / "models" / MODEL / "work.json"
#: Graph -> precision -> the artifact's name, and the precision in which to look at it, ``None`` for its own.
GRAPHS: dict[str, dict[str, tuple[str, str | None]]] = {
    "published": {precision: ("published", precision) for precision in ("fp32", "fp16", "int8")},
    "exact": {"fp16": ("exact-fp16", None), "int8": ("exact-int8", None)},
    "basis": {"fp16": ("basis-fp16", None), "int8": ("basis-int8", None)},
}
ORDERS = {
    "published": Order(target="trt-fp32", wanted=Wanted(ctal="affinity")),
    "exact-fp16": Order(target="trt-fp16"),
    "exact-int8": Order(target="trt-int8", max_drop="none"),
    "basis-fp16": Order(target="trt-fp16", wanted=Wanted(ctal="basis")),
    "basis-int8": Order(target="trt-int8", wanted=Wanted(ctal="basis"), max_drop="none"),
}


def make(folder: Path, output: Path) -> None:
    """Export what is missing in ``folder``, and write the tables; raises EmadeployError."""
    for name, order in ORDERS.items():
        if not (folder / name / "manifest.json").is_file():
            print(f"== {name}", flush=True)
            make_artifact(MODEL, replace(order, output=folder / name))
    manifests = {name: Manifest.read(folder / name) for name in ORDERS}
    sources = {manifest.source.get("sha256") for manifest in manifests.values()}
    if len(sources) != 1:
        raise ArtifactError(f"the artifacts in {folder} are of different weights ({len(sources)}): remove them")
    works: dict[str, dict[str, Work]] = {
        graph: {precision: read_work(folder / name, uniform=uniform) for precision, (name, uniform) in tables.items()}
        for graph, tables in GRAPHS.items()
    }
    some = manifests["exact-int8"]
    record = {
        "schema": SCHEMA,
        "command": "python tools/make_work_tables.py",
        "model": MODEL,
        "sha256": some.source["sha256"],
        "size": list(some.model.input.size),
        "tasks": [task.name for task in some.model.tasks],
    }
    write_file(output, to_json(record, works))
    for graph, tables in works.items():
        for precision, work in tables.items():
            print(f"{graph} {precision}: {len(work.layers)} layers, {work.macs / 1e9:.1f} GMAC")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 where the tables are written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="keep the artifacts here")
    parser.add_argument("--json", type=Path, default=OUTPUT)
    asked = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="emadeploy-work-") as temporary:
            make(asked.output or Path(temporary), asked.json)
    except EmadeployError as error:
        print(one_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
