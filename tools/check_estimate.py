"""Check the method of the estimates where it can be checked: on this CPU, whose rates are measured first.

    python tools/bench_targets.py -o FOLDER        # makes the artifacts; any others do, too
    python tools/check_estimate.py FOLDER/published FOLDER/fp32 FOLDER/ov-int8 ... [--json docs/estimates.json]

Measures the highest rates of the CPU, estimates every artifact from its own layers by the method of
`emadeploy.bench.estimate`, with the same shares as for a Jetson, measures it, and prints how far off the estimate was.
What OpenVINO makes of a float artifact in another precision is one more artifact: export it. Writes the record and the
table in docs/estimates.md. Needs an idle machine; exit status 1 where an artifact was faster than its bound.

    python tools/check_estimate.py --table         # measure nothing: the table from the record
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from measure_bound import rate as int8_rate
from openvino import opset13
from readme_table import replaced

from emadeploy.bench.estimate import Estimate, Machine, estimate
from emadeploy.bench.measure import ROUNDS, measure
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import EmadeployError, one_line
from emadeploy.contract.manifest import Manifest
from emadeploy.data.source import open_data
from emadeploy.evaluate.records import write_record
from emadeploy.runtime.backends.openvino import CORE
from emadeploy.runtime.machine import cpu_flags, cpu_model, usable_cores
from emadeploy.work.artifact import read_work

SCHEMA = 1
ROOT = Path(__file__).parents[1]
JSON = ROOT / "docs" / "estimates.json"
DOCUMENT = ROOT / "docs" / "estimates.md"
FRAME = "rooms:seed=7,count=1"
#: The vectors of this CPU take 16 channels at once in every precision.
GRANULE = (16, 16)
#: Seconds from one kernel to the next: waking the threads, and waiting for the last. Assumed.
LAUNCH = 1e-5
_REPEATS = 9
#: A matrix product, and convolutions of many channels: where the multipliers are as busy as they can be.
_MATRIX, _CHANNELS, _MAP, _DEPTH = 2048, 128, (144, 192), 4
#: Bytes of one array that is copied: far more than any cache holds.
_COPIED = 512 * 2**20


def best_seconds(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the shortest of ``repeats`` runs, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def float_rate(precision: str, threads: int) -> float:
    """Return the multiply-accumulates per second of 'fp32' or 'bf16': the best of OpenVINO and NumPy's product."""
    convolutions = max(_convolution_rate(precision, threads, kernel) for kernel in (1, 3))
    if precision != "fp32":
        return convolutions
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(_MATRIX, _MATRIX)).astype(np.float32) for _ in range(2))
    return max(convolutions, _MATRIX**3 / best_seconds(lambda: left @ right))


def _convolution_rate(precision: str, threads: int, kernel: int) -> float:
    image = feat = opset13.parameter((1, _CHANNELS, *_MAP), np.float32)
    rng = np.random.default_rng(0)
    edge = [kernel // 2] * 2
    for _ in range(_DEPTH):
        weights = rng.normal(0, 0.02, (_CHANNELS, _CHANNELS, kernel, kernel)).astype(np.float32)
        feat = opset13.relu(opset13.convolution(feat, weights, [1, 1], edge, edge, [1, 1]))
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    request = CORE.compile_model(ov.Model([feat], [image]), "CPU", settings).create_infer_request()
    picture = rng.uniform(0, 1, image.get_output_shape(0)).astype(np.float32)
    macs = _DEPTH * _CHANNELS**2 * kernel**2 * _MAP[0] * _MAP[1]
    return macs / best_seconds(lambda: request.infer({0: picture}))


def copy_rate(threads: int, size: int = _COPIED) -> float:
    """Return the bytes per second, read and written, of ``threads`` that copy ``size`` bytes with NumPy."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    parts = [slice(size * index // threads, size * (index + 1) // threads) for index in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return (
            2 * size / best_seconds(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)))
        )


def cache_bytes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the size of the largest cache, 0 where the system does not tell."""
    units = {"K": 2**10, "M": 2**20}
    sizes = [(folder / "size").read_text().strip() for folder in root.glob("index*") if (folder / "size").is_file()]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def rates(threads: int) -> dict[str, Any]:
    """Return what the CPU reaches: multiply-accumulates per second by precision, bytes per second, its cache."""
    macs = {"fp32": float_rate("fp32", threads), "int8": int8_rate(threads)}
    if "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags():
        macs["bf16"] = float_rate("bf16", threads)
    return {"macs_per_second": macs, "bytes_per_second": copy_rate(threads), "cache_bytes": cache_bytes()}


def machine_of(measured: dict[str, Any]) -> Machine:
    """Return the CPU as estimates take it: its rates are what was reached, so no share is taken off them."""
    macs = measured["macs_per_second"]
    return Machine(
        # What has no unit of its own for float16 runs in float32.
        {**macs, "fp16": macs["fp32"]},
        measured["bytes_per_second"],
        measured["cache_bytes"],
        dict.fromkeys((*macs, "fp16"), 1.0),
        1.0,
        dict.fromkeys((*macs, "fp16"), GRANULE),
        LAUNCH,
    )


def row_of(artifact: Path, found: Estimate, reached: float) -> dict[str, Any]:
    """Return what was estimated and what was ``reached``, in milliseconds, of one artifact."""
    manifest = Manifest.read(artifact)
    return {
        "name": artifact.name,
        "target": manifest.target,
        "ctal": manifest.graph.get("ctal"),
        "size": list(manifest.model.input.size),
        "bound_ms": found.bound_ms,
        "likely_ms": found.likely_ms,
        "measured_ms": reached,
        "error": found.likely_ms / reached - 1,
        "kinds_ms": dict(found.kinds_ms),
    }


def check(artifacts: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Measure the CPU and the artifacts, estimate these, and return the record; raises EmadeployError."""
    works = {artifact: read_work(artifact) for artifact in artifacts}
    threads = usable_cores()
    measured = rates(threads)
    machine = machine_of(measured)
    frame = open_data(FRAME)[0].image
    with progress("measuring") as bar:
        rows = measure({str(path): path for path in artifacts}, frame, threads=threads, rounds=rounds, progress=bar)
    lines = []
    for (artifact, work), row in zip(works.items(), rows, strict=True):
        if row.latency_ms is None:
            raise EmadeployError(f"{artifact}: {row.status}")
        lines.append(row_of(artifact, estimate(work, machine), row.latency_ms["p50"]))
    return {
        "schema": SCHEMA,
        "command": "python tools/check_estimate.py",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": {"cpu": cpu_model(), "flags": cpu_flags()},
        "threads": threads,
        "rounds": rounds,
        "rates": measured,
        "rows": lines,
    }


def table(record: dict[str, Any]) -> str:
    """Return the record as a table for the document, with what it says in a sentence."""
    lines = ["| engine | CTAL | at least | likely | measured | likely is off by |", "|---|---|---|---|---|---|"]
    for row in record["rows"]:
        times = " | ".join(f"{row[key]:.0f} ms" for key in ("bound_ms", "likely_ms", "measured_ms"))
        size = "" if row["size"] == [288, 384] else ", {} x {}".format(*row["size"])
        lines.append(f"| {row['target']}{size} | {row['ctal'] or '-'} | {times} | {100 * row['error']:+.0f} % |")
    errors = [abs(row["error"]) for row in record["rows"]]
    beaten = [row["name"] for row in record["rows"] if row["measured_ms"] < row["bound_ms"]]
    held = f"**The bound was beaten by {', '.join(beaten)}.**" if beaten else "No engine was faster than its bound."
    macs = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in record["rates"]["macs_per_second"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Off by {100 * float(np.mean(errors)):.0f} % on average, by {100 * max(errors):.0f} % at most. {held} "
            f"Medians of {record['rounds']} calls in turns, {record['threads']} threads of an "
            f"{record['machine']['cpu']} ({', '.join(record['machine']['flags'])}); its rates, measured just before: "
            f"{macs} GMAC/s, {record['rates']['bytes_per_second'] / 1e9:.1f} GB/s copied. By `{record['command']}`, "
            f"{record['date']}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 where no artifact was faster than its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, default=JSON)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--table", action="store_true", help="measure nothing: write the table from the record")
    asked = parser.parse_args(arguments)
    try:
        if not asked.table:
            if not asked.artifacts:
                parser.error("name at least one artifact, a folder made by emadeploy export")
            write_record(asked.json, check(asked.artifacts, asked.rounds))
        record = json.loads(asked.json.read_text(encoding="utf-8"))
    except (EmadeployError, OSError, ValueError) as error:
        print(one_line(error), file=sys.stderr)
        return 1
    written = table(record)
    asked.document.write_text(replaced(asked.document.read_text("utf-8"), "estimates", written), encoding="utf-8")
    print(written)
    return 1 if any(row["measured_ms"] < row["bound_ms"] for row in record["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
