"""Have MLPerf's LoadGen drive an artifact through our runtime, single stream, as it drives every other system.

    python tools/loadgen_singlestream.py ARTIFACT [--data DATA] [--min-seconds 60] [--threads N] [--device D] [-o DIR]

Performance mode: a query is a frame of DATA (by default made rooms of the artifact's size), the next one is issued when
`perception(frame)` has answered, for `--min-seconds` and 64 queries at least. The 90th percentile that LoadGen finds is
printed beside that of our own bench, which measures the same call in a process of its own. With `--data` also accuracy
mode: every frame once, all maps into LoadGen's log, which is read back and judged by the metrics of `emadeploy eval`.

LoadGen's logs go into DIR, by default a temporary one. Needs mlcommons-loadgen (`pip install mlcommons-loadgen`).
Exit status 1 where LoadGen calls the run invalid, or something failed. It is no submission to MLPerf.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.entrants import entrant
from emadeploy.bench.race import Effort, race
from emadeploy.bench.rows import Row
from emadeploy.bench.stats import QUERIES
from emadeploy.contract.errors import BackendMissing, DataError, DeviceError, EmadeployError, one_line
from emadeploy.data.sample import Dataset
from emadeploy.data.source import open_data
from emadeploy.evaluate.metrics import default_edges
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime import Runtime, load

_PERCENTILE = 90
#: Frames that performance mode keeps in memory and draws from.
_IN_MEMORY = 64
_MADE = "rooms:seed=7,count=8,size={}x{}"
_SUMMARY, _ACCURACY = "mlperf_log_summary.txt", "mlperf_log_accuracy.json"
_PATTERNS = {
    "p50": r"^50\.00 percentile latency \(ns\) *: (\d+)$",
    "p90": r"^90\.0+(?:th)? percentile latency \(ns\) *: (\d+)$",
    "p99": r"^99\.00 percentile latency \(ns\) *: (\d+)$",
    "n": r"^ \* Processed at least \d+ queries \((\d+)\)\.$",
}


@dataclass(frozen=True)
class Summary:
    """What LoadGen found: ``valid`` by its rules, percentiles in milliseconds, ``n`` queries."""

    valid: bool
    p50: float
    p90: float
    p99: float
    n: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--min-seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    try:
        with _folder(given.output) as folder:
            return _run(given.artifact, given, folder)
    except (EmadeployError, OSError) as error:
        print(f"loadgen_singlestream: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1


def performance(perception: Runtime, data: Dataset, min_seconds: float, folder: Path) -> Summary:
    """Let LoadGen time ``perception`` on frames of ``data``; return its summary. Raises as :func:`drive`."""
    drive(perception, data, folder, min_seconds=min_seconds)
    return read_summary(folder / _SUMMARY)


def accuracy(perception: Runtime, data: Dataset, folder: Path) -> dict[str, Any]:
    """Let LoadGen ask for every frame of ``data`` once; return the evaluation of what its log holds.

    Raises DataError where the log does not hold an answer for every frame; and as :func:`drive`.
    """
    drive(perception, data, folder, min_seconds=None)
    answers = read_answers(folder / _ACCURACY)
    if sorted(answers) != list(range(len(data))):
        raise DataError(f"{folder / _ACCURACY} has answers for {len(answers)} of {len(data)} frames")
    # evaluate() takes the frames in their order.
    indices = iter(range(len(data)))
    return evaluate(lambda _: answers[next(indices)], data, perception.spec.tasks, edges=default_edges())


def drive(perception: Runtime, data: Dataset, folder: Path, *, min_seconds: float | None) -> None:
    """Run LoadGen once in ``folder``: in performance mode for ``min_seconds``, or with ``None`` in accuracy mode.

    Raises BackendMissing where LoadGen is not installed, and what ``perception`` raises for a frame.
    """
    loadgen = _loadgen()
    perception(data[0].image)  # what it does not take at all is said before a minute has gone by
    frames: dict[int, np.ndarray[Any, Any]] = {}
    failures: list[BaseException] = []

    def load_frames(indices: Sequence[int]) -> None:
        frames.update((index, np.ascontiguousarray(data[index].image)) for index in indices)

    def unload_frames(indices: Sequence[int]) -> None:
        for index in indices:
            del frames[index]

    def answer(queries: Sequence[Any]) -> None:
        for query in queries:
            packed = b""
            try:
                if not failures:
                    outputs = perception(frames[query.index])
                    # Only accuracy mode reads what is answered: packing is no part of a call.
                    packed = pack(outputs.maps) if min_seconds is None else b""
            except BaseException as error:
                # Through LoadGen's own code no exception finds its way: it is raised when the run is over.
                failures.append(error)
            if failures:
                time.sleep(0.01)
            buffer = np.frombuffer(packed, np.uint8)
            address = buffer.ctypes.data if packed else 0
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, address, len(packed))])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.single_stream_target_latency_percentile = _PERCENTILE / 100
    settings.mode = loadgen.TestMode.AccuracyOnly if min_seconds is None else loadgen.TestMode.PerformanceOnly
    if min_seconds is not None:
        settings.min_duration_ms = int(1e3 * min_seconds)
        settings.min_query_count = QUERIES[_PERCENTILE]
    system = loadgen.ConstructSUT(answer, lambda: None)
    library = loadgen.ConstructQSL(len(data), min(len(data), _IN_MEMORY), load_frames, unload_frames)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, _logs(loadgen, folder))
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    if failures:
        raise failures[0]


def read_summary(path: Path) -> Summary:
    """Return what LoadGen's summary says; raises DataError where it is not one of performance mode."""
    text = path.read_text(encoding="utf-8")
    found = {key: re.search(pattern, text, re.MULTILINE) for key, pattern in _PATTERNS.items()}
    missing = [key for key, match in found.items() if match is None]
    if missing:
        raise DataError(f"{path} does not tell {', '.join(missing)}; expected LoadGen's summary of a single stream")
    numbers = {key: int(match[1]) for key, match in found.items() if match is not None}
    spread = {key: numbers[key] / 1e6 for key in ("p50", "p90", "p99")}
    return Summary(valid="Result is : VALID" in text, n=numbers["n"], **spread)


def read_answers(path: Path) -> dict[int, dict[str, np.ndarray[Any, Any]]]:
    """Return the maps by task of each frame in LoadGen's accuracy log; raises DataError where it is none."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry["qsl_idx"]: unpack(bytes.fromhex(entry["data"])) for entry in entries}
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path} is not LoadGen's log of accuracy mode: {type(error).__name__}: {error}") from None


def pack(maps: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return maps as bytes that say their names, types and shapes."""
    buffer = io.BytesIO()
    np.savez(buffer, **maps)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(packed: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return what :func:`pack` was given."""
    with np.load(io.BytesIO(packed)) as maps:
        return {name: maps[name] for name in maps.files}


def _run(artifact: Path, given: argparse.Namespace, folder: Path) -> int:
    with load(artifact, threads=given.threads, device=given.device) as perception:
        height, width = perception.manifest.frame_size or perception.spec.input.size
        data = open_data(given.data or _MADE.format(height, width), split="val")
        if not len(data):
            raise DataError(f"--data {given.data} holds no frame")
        summary = performance(perception, data, given.min_seconds, folder)
        record = accuracy(perception, data, folder) if given.data is not None else None
    ours = _ours(artifact, data, given)
    print(f"{'':<16}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'queries':>10}")
    print(f"{'MLPerf LoadGen':<16}{summary.p50:>10.2f}{summary.p90:>10.2f}{summary.p99:>10.2f}{summary.n:>10}")
    spread = ours.end_to_end_ms or {}
    p99 = "–" if spread["p99"] is None else f"{spread['p99']:.2f}"
    print(f"{'emadeploy bench':<16}{spread['p50']:>10.2f}{spread['p90']:>10.2f}{p99:>10}{spread['n']:>10}")
    print(f"LoadGen calls the run {'valid' if summary.valid else 'INVALID'}")
    if record is not None:
        print(f"accuracy mode, {record['frames']} frames of {record['data']}:")
        for task, metrics in record["tasks"].items():
            print(f"  {task}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return 0 if summary.valid else 1


def _ours(artifact: Path, data: Dataset, given: argparse.Namespace) -> Row:
    """Return the row of our own bench, as long as LoadGen ran; raises DeviceError where it failed."""
    frame = np.ascontiguousarray(data[0].image)
    effort = Effort(percentile=_PERCENTILE, min_time_s=given.min_seconds, warm_up=None)
    [row] = race([entrant(artifact.name, artifact, frame, threads=given.threads, device=given.device)], effort)
    if not row.measured:
        raise DeviceError(f"emadeploy bench: {row.status}")
    return row


def _logs(loadgen: Any, folder: Path) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    logs = loadgen.LogSettings()
    logs.log_output, logs.enable_trace = output, False
    return logs


def _loadgen() -> Any:
    try:
        import mlperf_loadgen
    except ImportError:
        raise BackendMissing(
            "MLPerf's LoadGen is not installed: pip install mlcommons-loadgen (wheels for Linux on x86-64)"
        ) from None
    return mlperf_loadgen


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="emadeploy-loadgen-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
