"""Check that `emadeploy bench` agrees with other people's measurements of the same engines, in rounds by turns.

    python tools/check_bench.py ARTIFACT ... [--threads N] [--rounds 9] [--calls 20] [--within 10]

An artifact for OpenVINO is held against its own `benchmark_app` (synchronous, with the properties that our session
compiles with); one for ONNX Runtime against a plain loop over `InferenceSession.run`, as `onnxruntime_perf_test` has
it, with the library's default options and the same threads. Ours is the time 'inference' of the process that the bench
measures. Within a round one runs after the other, and who begins changes: a machine that drifts slows both.

Prints a table, writes docs/bench_check.json and the lines of docs/bench.md between its markers. Exit status 1 where the
median of the rounds' ratios is further from 1 than is allowed, or something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.conditions import conditions
from emadeploy.bench.entrants import CHILD
from emadeploy.bench.process import Child
from emadeploy.bench.stats import paired_interval, paired_speedup
from emadeploy.contract.errors import DeviceError, EmadeployError, SpecError, one_line
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.machine import cpu_model, usable_cores

ROOT = Path(__file__).parents[1]
JSON, DOCUMENT = ROOT / "docs" / "bench_check.json", ROOT / "docs" / "bench.md"
BEGIN, END = "<!-- table: bench-check -->", "<!-- /table -->"
#: Calls before any is timed, of ours once and of theirs in every process.
WARM_UPS = 5
#: Seconds for a process of theirs, which loads and compiles anew each time.
_PATIENCE_S = 900
_APP = "from openvino.tools.benchmark.main import main; main()"

#: Runs a foreign measurement of so many calls; returns their median in milliseconds.
Theirs = Callable[[int], float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the artifacts, write what was found, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--within", type=float, default=10.0, help="percent")
    parser.add_argument("--json", type=Path, default=JSON)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    given = parser.parse_args(arguments)
    try:
        _around_the_table(given.document)  # before minutes of work
        load = conditions().load_average
        rows = []
        for path in given.artifacts:
            print(f"measuring {path}", flush=True)
            rows.append(check(path, given.threads, given.rounds, given.calls, given.within))
        record = {
            "machine": cpu_model(),
            "threads": given.threads,
            "rounds": given.rounds,
            "calls": given.calls,
            "within_percent": given.within,
            "load_average": load,
            "rows": rows,
        }
        given.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_lines(given.document, table(record))
    except (EmadeployError, OSError) as error:
        print(f"check_bench: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    print("\n".join(table(record)))
    return 0 if all(row["agrees"] for row in rows) else 1


def check(artifact: Path, threads: int, rounds: int, calls: int, within: float) -> dict[str, Any]:
    """Return the row of an artifact. Raises DeviceError where ours or theirs fails, SpecError for other engines."""
    if min(threads, rounds, calls) < 1:
        raise SpecError(f"threads {threads}, rounds {rounds}, calls {calls}: one of them is not positive")
    manifest = Manifest.read(artifact)
    manifest.verify_files(artifact)
    makers = {"openvino": benchmark_app, "onnxruntime": plain_loop}
    if manifest.engine not in makers:
        raise SpecError(f"{artifact} is for {manifest.engine}; there is a measurement of {' and '.join(makers)} alone")
    name, theirs = makers[manifest.engine](artifact, manifest, threads)
    with tempfile.TemporaryDirectory(prefix="emadeploy-check-") as folder:
        frame = Path(folder) / "frame.npy"
        size = manifest.frame_size or manifest.model.input.size
        np.save(frame, np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        argv = [*CHILD, str(artifact.absolute()), str(frame), str(threads), "cpu"]
        with Child(argv, Path(folder) / "stderr") as child:
            child.start()
            ours = _ours(child)
            ours(WARM_UPS)
            pairs = [_round(ours, theirs, calls, flipped=bool(index % 2)) for index in range(rounds)]
    our_ms, their_ms = ([pair[side] for pair in pairs] for side in (0, 1))
    ratio, interval = paired_speedup(our_ms, their_ms), paired_interval(our_ms, their_ms)
    return {
        "artifact": artifact.resolve().name,
        "target": manifest.target,
        "against": name,
        "ours_ms": float(np.median(our_ms)),
        "theirs_ms": float(np.median(their_ms)),
        "ratio": ratio,
        "ratio_ci": None if interval is None else list(interval),
        "agrees": abs(ratio - 1) <= within / 100,
        "rounds_ms": [list(pair) for pair in pairs],
    }


def benchmark_app(artifact: Path, manifest: Manifest, threads: int) -> tuple[str, Theirs]:
    """Return OpenVINO's own tool, on the network of ``artifact`` with the properties of our session."""
    from emadeploy.runtime.backends.openvino import VERSION, compile_settings

    settings = compile_settings("cpu", manifest.rest, threads)
    words = {True: "YES", False: "NO"}
    said = {key: words[value] if isinstance(value, bool) else str(value) for key, value in settings.items()}
    # It makes inputs uint8 where it is not told: a conversion more, and another graph.
    types = {"float32": "f32", "uint8": "u8"}
    precision = types[manifest.inputs[0].dtype]

    def run(calls: int) -> float:
        with tempfile.TemporaryDirectory(prefix="emadeploy-app-") as folder:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps({"CPU": said}))
            argv = [sys.executable, "-c", _APP, "-m", str(artifact.absolute() / manifest.engine_file), "-d", "CPU"]
            argv += ["-api", "sync", "-hint", "none", "-load_config", str(config), "-ip", precision]
            argv += ["-niter", str(calls), "-json_stats", "-report_type", "no_counters", "-report_folder", folder]
            _run(argv)
            record = json.loads((Path(folder) / "benchmark_report.json").read_text())
        return float(record["execution_results"]["latency (ms)"])

    return f"benchmark_app {VERSION}", run


def plain_loop(artifact: Path, manifest: Manifest, threads: int) -> tuple[str, Theirs]:
    """Return a loop over ONNX Runtime as its own perf_test has it: the library's defaults, a random input."""
    import onnxruntime

    argv = [sys.executable, str(Path(__file__).absolute().with_name("loop_onnxruntime.py"))]
    argv += [str(artifact.absolute() / manifest.engine_file), str(threads), str(WARM_UPS)]

    def run(calls: int) -> float:
        return float(_run([*argv, str(calls)]).split()[-1])

    return f"plain loop, onnxruntime {onnxruntime.__version__}", run


def table(record: dict[str, Any]) -> list[str]:
    """Return the lines of the document: the table, and what it was measured on."""
    lines = ["| engine | against | ours ms | theirs ms | ours / theirs | agrees |", "|---|---|---|---|---|---|"]
    for row in record["rows"]:
        ends = "" if row["ratio_ci"] is None else " [{:.3f}, {:.3f}]".format(*row["ratio_ci"])
        lines.append(
            f"| {row['artifact']} | {row['against']} | {row['ours_ms']:.2f} | {row['theirs_ms']:.2f} "
            f"| {row['ratio']:.3f}{ends} | {'yes' if row['agrees'] else '**no**'} |"
        )
    busy = "" if record["load_average"] is None else f", load {record['load_average']:.1f} before"
    return [
        *lines,
        "",
        f"{record['machine']}, {record['threads']} threads{busy}; medians of {record['rounds']} rounds of "
        f"{record['calls']} calls; in brackets the ratio's interval at 95 %. Agrees: "
        f"within {record['within_percent']:g} %.",
    ]


def write_lines(document: Path, lines: Sequence[str]) -> None:
    """Put ``lines`` between the markers of ``document``; raises SpecError where it has none."""
    before, after = _around_the_table(document)
    document.write_text("\n".join([before, *lines, after]), encoding="utf-8")


def _around_the_table(document: Path) -> tuple[str, str]:
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SpecError(f"{document} has no place for the table: {BEGIN} and {END}")
    return before + begin, end + after


def _round(ours: Theirs, theirs: Theirs, calls: int, *, flipped: bool) -> tuple[float, float]:
    if flipped:
        second = theirs(calls)
        return ours(calls), second
    return ours(calls), theirs(calls)


def _ours(child: Child) -> Theirs:
    def run(calls: int) -> float:
        # The first finds the other's data in the caches, and is theirs as well not counted.
        timings = child.run(calls + 1)
        if timings is None:
            raise DeviceError(f"the bench's own process: {child.trouble}")
        return float(np.median([call["inference"] for call in timings[1:]]))

    return run


def _run(argv: Sequence[str]) -> str:
    """Run a process of theirs and return its stdout; raises DeviceError where it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{' '.join(argv[:4])} ... gave no answer within {_PATIENCE_S} s") from None
    if done.returncode:
        said = next((line for line in reversed((done.stderr + done.stdout).splitlines()) if line.strip()), "nothing")
        raise DeviceError(f"{' '.join(argv[:4])} ... ended with status {done.returncode}: {said.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
