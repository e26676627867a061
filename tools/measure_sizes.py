"""Measure a model of the zoo at several image sizes, and record it in models/NAME/card.json for the model card.

    python tools/measure_sizes.py [NAME] [--size HxW:FRAMES ...] [--again] [-o FOLDER]

At each size: float32 with CTAL exact, which is the reference of accuracy; OpenVINO int8 with CTAL on a basis; and the
published graph, where this machine's memory holds it. Accuracy on held-out rooms rendered at that very size; times in
turns, one process each. Each size is recorded when it is done, and not measured again (but with --again), so that a run
that is killed loses one size. FOLDER keeps the artifacts. Needs an idle machine for the times.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emadeploy import nets, zoo
from emadeploy.bench.measure import ROUNDS, measure
from emadeploy.bench.rows import Row
from emadeploy.cli.exporting.make import make_artifact
from emadeploy.cli.exporting.order import Order
from emadeploy.cli.options import parse_size
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import DataError, EmadeployError, SpecError, one_line
from emadeploy.contract.manifest import Manifest
from emadeploy.data.sample import Dataset
from emadeploy.data.source import open_data
from emadeploy.evaluate.metrics import TaskMetrics
from emadeploy.evaluate.records import write_record
from emadeploy.evaluate.run import evaluate
from emadeploy.export.stage import Wanted
from emadeploy.nets.network import MAP_STRIDE
from emadeploy.runtime import load
from emadeploy.runtime.machine import cpu_flags, cpu_model, memory_mb, usable_cores

MODEL = "emanet-rooms"
#: A smaller size than that of the training, that size, and one whose affinities no machine of ours holds.
SIZES = ("192x256:200", "288x384:200", "512x1024:40")
#: What the published form holds at its peak, in affinities: their normalised, mixed and transposed forms.
ON_THE_WAY = 3
#: Not judged at export: what int8 costs at each size is what is measured here.
ORDERS = {
    "published": Order(wanted=Wanted(ctal="affinity")),
    "float32": Order(),
    "int8": Order(target="openvino-int8", wanted=Wanted(ctal="basis"), max_drop="none"),
}


@dataclass(frozen=True)
class Plan:
    """An image size, (height, width), and the number of rooms that judge it."""

    size: tuple[int, int]
    frames: int

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read 'HxW:FRAMES'; raises SpecError for anything else."""
        size, _, frames = text.partition(":")
        if not frames.isdigit() or not int(frames):
            raise SpecError(f"size {text!r} is not HEIGHTxWIDTH:FRAMES, e.g. 192x256:200")
        return cls(parse_size(size), int(frames))

    @property
    def data(self) -> str:
        """The rooms: of a seed that no training and no calibration uses."""
        return f"rooms:seed=7,count={self.frames},size={self}"

    def __str__(self) -> str:
        return "{}x{}".format(*self.size)


def affinities_mb(tasks: int, size: tuple[int, int]) -> float:
    """Return the MB of float32 affinities that the published form holds: one matrix per task, and their mixture."""
    pixels = size[0] * size[1] // MAP_STRIDE**2
    return (tasks + 1) * pixels**2 * 4 / 1e6


def measure_size(weights: Path, plan: Plan, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the row of ``plan`` for card.json; artifacts are made in ``folder``. Raises EmadeployError."""
    checkpoint = nets.read_checkpoint(weights)
    digest = checkpoint.files["model.safetensors"].sha256
    needed, memory = affinities_mb(len(checkpoint.spec.tasks), plan.size), memory_mb()
    fits = memory is None or ON_THE_WAY * needed < memory * 2**20 / 1e6
    names = [name for name in ORDERS if fits or name != "published"]
    with progress(f"rendering {plan}") as bar:
        data = open_data(plan.data, split="val", workers=usable_cores(), progress=bar)
    artifacts = {name: _export(weights, digest, name, plan, folder) for name in names}
    accuracy = {name: _evaluate(artifacts[name], data, f"{plan} {name}") for name in ("float32", "int8")}
    with progress(f"{plan}: {', '.join(names)}") as bar:
        measured = measure(artifacts, data[0].image, rounds=rounds, progress=bar)
    rows = dict(zip(names, measured, strict=True))
    manifests = [Manifest.read(path) for path in artifacts.values()]
    return {
        "size": list(plan.size),
        "affinities_mb": needed,
        "on_the_way_mb": ON_THE_WAY * needed,
        "published_fits": fits,
        "data": data.description,
        "frames": len(data),
        "accuracy": accuracy,
        "rewrites": list(manifests[-1].graph["rewrites"]),
        **_speed(plan, rows),
        "rounds": rounds,
        "threads": measured[0].threads,
        "machine": {"cpu": cpu_model(), "cores": usable_cores(), "flags": cpu_flags(), "memory_mb": memory},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "weights_sha256": digest,
        "versions": {name: version for manifest in manifests for name, version in manifest.versions.items()},
    }


def _export(weights: Path, digest: str, name: str, plan: Plan, folder: Path) -> Path:
    """Return the artifact of the weights in that form: made now, unless it lies in ``folder``."""
    place = folder / f"{name}-{plan}"
    if (place / "manifest.json").is_file() and Manifest.read(place).source.get("sha256") == digest:
        return place
    order = ORDERS[name]
    print(f"== {plan}, {name}: {order.target}, CTAL {order.wanted.ctal or 'exact'}", flush=True)
    return make_artifact(str(weights), replace(order, output=place, size=plan.size))


def _evaluate(artifact: Path, data: Dataset, what: str) -> TaskMetrics:
    with load(artifact) as perception, progress(f"evaluating {what}") as bar:
        record = evaluate(lambda frame: perception(frame).maps, data, perception.spec.tasks, bar)
    metrics: TaskMetrics = record["tasks"]
    return metrics


def _speed(plan: Plan, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return times and memory by form. Ratios are to the published graph; ``None`` where that was not run."""
    failed = [f"{name}: {row.status}" for name, row in rows.items() if not row.measured]
    if failed:
        raise EmadeployError(f"{plan}: not measured, {'; '.join(failed)}; give the machine more memory, or less to do")
    return {
        "latency_ms": {name: dict(row.latency_ms or {}) for name, row in rows.items()},
        "end_to_end_ms": {name: dict(row.end_to_end_ms or {}) for name, row in rows.items()},
        "peak_memory_mb": {name: row.peak_memory_mb for name, row in rows.items()},
        "speedup": rows["int8"].speedup if "published" in rows else None,
    }


def measure_sizes(folder: Path, plans: Sequence[Plan], artifacts: Path, *, rounds: int, again: bool) -> None:
    """Measure the model in ``folder`` at each of ``plans`` and record it in its card.json, size by size.

    A size that stands there already, measured on these weights and as many frames, is left as it is, unless ``again``.
    Raises EmadeployError; sizes that were measured before are recorded by then.
    """
    weights = folder / "weights"
    digest = nets.read_checkpoint(weights).files["model.safetensors"].sha256
    for plan in plans:
        done = {(tuple(r["size"]), r["frames"], r["weights_sha256"]) for r in _facts(folder).get("sizes", [])}
        if (plan.size, plan.frames, digest) in done and not again:
            print(f"{plan}: recorded already; --again measures it anew")
            continue
        row = measure_size(weights, plan, artifacts, rounds)
        row["command"] = f"python tools/measure_sizes.py {folder.name} --size {plan}:{plan.frames}"
        # Read anew: measuring takes long enough for somebody to change the file.
        facts = _facts(folder)
        others = [other for other in facts.get("sizes", []) if tuple(other["size"]) != plan.size]
        facts["sizes"] = sorted([*others, row], key=lambda each: each["size"][0] * each["size"][1])
        write_record(folder / "card.json", facts)
        print(f"{plan}: recorded in {folder / 'card.json'}", flush=True)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): run python tools/measure_zoo.py {folder.name}") from None
    return facts


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", nargs="?", default=MODEL, help=f"a model of the zoo [default: {MODEL}]")
    parser.add_argument("--size", metavar="HxW:FRAMES", action="append", help=f"[default: {' '.join(SIZES)}]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"calls of each that are timed [default: {ROUNDS}]")
    parser.add_argument("--again", action="store_true", help="measure sizes that are recorded already")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="keep the artifacts here, and use them again"
    )
    parser.add_argument("--models", type=Path, default=zoo.assets("models"), help="the folder of the models")
    asked = parser.parse_args(arguments)
    try:
        plans = [Plan.parse(text) for text in asked.size or SIZES]
        with tempfile.TemporaryDirectory(prefix="emadeploy-sizes-") as temporary:
            artifacts = asked.output or Path(temporary)
            artifacts.mkdir(parents=True, exist_ok=True)
            measure_sizes(asked.models / asked.name, plans, artifacts, rounds=asked.rounds, again=asked.again)
    except EmadeployError as error:
        print(f"measure_sizes: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"now run python tools/model_cards.py {asked.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
