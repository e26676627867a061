"""Measure the published graph against the rewritten one on this machine's NVIDIA GPU: time and peak memory.

    python tools/bench_gpu.py [-o FOLDER] [--sizes 288x384,512x1024] [--ways torch,tensorrt] [--runs 100]
    python tools/bench_gpu.py --table            # docs/gpu.md from docs/gpu.json, without measuring

Each row is a process of its own, so that one which runs out of memory ends alone and none sees another's memory: a way
to run (PyTorch, ONNX Runtime's CUDA provider, TensorRT, TensorRT for RTX), a form, a precision and a size. What this
machine cannot run is a row too, with the reason. Writes docs/gpu.json, after each row, and the table of docs/gpu.md.
Exports go into FOLDER, by default a temporary one. Exit status 1 where no row could be measured.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import EmadeployError, one_line

ROOT = Path(__file__).parents[1]
JSON, DOCUMENT = ROOT / "docs" / "gpu.json", ROOT / "docs" / "gpu.md"
MODEL = "emanet-rooms"
FORMS = {"affinity": "published", "exact": "rewritten"}
PRECISIONS = ("fp32", "fp16")
SIZES = "288x384,512x1024"
WAYS = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime, CUDA",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT for RTX",
}
WARM_UPS = 10
ROW_SECONDS = 900
BEGIN, END = "<!-- table: gpu -->", "<!-- /table -->"
_MIB = 1 << 20
#: In the last words of PyTorch, CUDA and ONNX Runtime.
_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate memory", re.IGNORECASE)
_NOTHING = (
    "**Nothing has been measured yet**: no NVIDIA GPU was at hand. On a machine with one, `make bench-gpu` measures "
    "and writes the table here, with the card's name."
)

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all rows, or one of them, or write the table alone; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.row:
        print(json.dumps(measure_row(*asked.row.split(","), runs=asked.runs, folder=asked.output)))
        return 0
    if not asked.table:
        measured = False
        with tempfile.TemporaryDirectory() as temporary:
            folder = asked.output or Path(temporary)
            for record in measure(asked.ways.split(","), asked.sizes.split(","), asked.runs, folder):
                # After each row: a machine that is lent may be taken back at any time.
                if measured := any("ms" in row for row in record["rows"]):
                    JSON.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if not measured:
            print("no row could be measured; nothing was written", file=sys.stderr)
            return 1
    record = json.loads(JSON.read_text("utf-8")) if JSON.exists() else None
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text("utf-8"), record), encoding="utf-8")
    print(table(record))
    return 0


def measure(ways: Sequence[str], sizes: Sequence[str], runs: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the record of the rows so far, after each; it is measured in a process of its own."""
    from emadeploy.runtime.machine import describe_machine

    rows: list[Row] = []
    for way in ways:
        for size in sizes:
            for precision in PRECISIONS:
                for form in FORMS:
                    row = in_a_process(way, form, precision, size, runs, folder)
                    rows.append(row)
                    told = f"{row['ms']:.2f} ms" if "ms" in row else row["failed"]
                    print(f"{WAYS[way]}, {FORMS[form]}, {precision}, {size}: {told}", flush=True)
                    yield {
                        "schema": 1,
                        "command": "python tools/bench_gpu.py",
                        "date": time.strftime("%Y-%m-%d", time.gmtime()),
                        "model": MODEL,
                        "runs": runs,
                        "gpu": next((row["gpu"] for row in rows if "gpu" in row), None),
                        "machine": describe_machine(),
                        "rows": rows,
                    }


def in_a_process(way: str, form: str, precision: str, size: str, runs: int, folder: Path) -> Row:
    """Return the row that another process measures, or the reason why it could not."""
    row: Row = {"way": way, "form": form, "precision": precision, "size": size}
    argv = [
        sys.executable,
        __file__,
        "--row",
        f"{way},{form},{precision},{size}",
        "--runs",
        str(runs),
        "-o",
        str(folder),
    ]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ROW_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return row | {"failed": f"not done after {ROW_SECONDS} s"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        reason = f"ended with status {done.returncode}: {last}"
        return row | {"failed": f"out of memory: {reason}" if _OUT_OF_MEMORY.search(done.stderr) else reason}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return row | found


def measure_row(way: str, form: str, precision: str, size: str, *, runs: int, folder: Path) -> Row:
    """Return 'ms', the median of ``runs`` frames, 'p90', 'memory_mb' and 'gpu'; or 'failed', the reason."""
    height, width = map(int, size.split("x"))
    run = {"torch": run_torch, "onnxruntime": run_onnxruntime}.get(way, run_tensorrt)
    try:
        return run(way, form, precision, (height, width), runs, folder)
    except (EmadeployError, ImportError) as error:
        return {"failed": one_line(error)}


def run_torch(way: str, form: str, precision: str, size: tuple[int, int], runs: int, folder: Path) -> Row:
    """The network itself on the GPU, TF32 off; peak memory as PyTorch's allocator counts it, weights included.

    fp16 is all of it in halves, for time and memory alone: its answers overflow, which takes as long.
    """
    import torch

    from emadeploy.export import deploy
    from emadeploy.export.source import open_source

    if not torch.cuda.is_available():
        return {"failed": f"PyTorch {torch.__version__} sees no GPU"}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = open_source(MODEL, size=size).network
    tasks = tuple(network.spec.task_names)
    rewritten = form != "affinity"
    network = deploy.exact(network, tasks, tiled=precision == "fp32")[0] if rewritten else deploy.published(network)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    module = deploy.Deployed(network, tasks).to("cuda", dtype).eval()
    image = torch.rand(1, 3, *size, device="cuda", dtype=dtype)

    def frame() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        module(image)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    torch.cuda.reset_peak_memory_stats()  # the weights are counted, loading them is not
    with torch.inference_mode():
        times = timed(frame, runs)
    peak = torch.cuda.max_memory_allocated()
    return {**times, "memory_mb": peak / _MIB, "gpu": torch.cuda.get_device_name(0), "version": torch.__version__}


def run_onnxruntime(way: str, form: str, precision: str, size: tuple[int, int], runs: int, folder: Path) -> Row:
    """The exported graph on the CUDA provider, input and outputs on the GPU; peak memory as its arena holds it."""
    import onnxruntime

    if precision != "fp32":
        return {"failed": "fp32 graphs alone are exported for it"}
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return {"failed": f"onnxruntime {onnxruntime.__version__} as installed has no CUDA provider"}
    from emadeploy.runtime.trt.memory import open_gpu

    gpu = open_gpu()
    artifact = exported("onnxruntime-fp32", form, size, folder)
    before = gpu.free_bytes()
    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return {"failed": f"onnxruntime took {session.get_providers()[0]} instead of CUDA"}
    binding = session.io_binding()
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def frame() -> float:
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return 1e3 * (time.perf_counter() - started)

    times = timed(frame, runs)
    taken = (before - gpu.free_bytes()) / _MIB
    return {**times, "memory_mb": taken, "gpu": gpu.device.name, "version": onnxruntime.__version__}


def run_tensorrt(way: str, form: str, precision: str, size: tuple[int, int], runs: int, folder: Path) -> Row:
    """The engine through the runtime, with the copies there and back; memory: all that it takes of the GPU."""
    from emadeploy.contract.manifest import TARGETS, Manifest
    from emadeploy.runtime.backends.tensorrt import open_session
    from emadeploy.runtime.trt.library import load_library
    from emadeploy.runtime.trt.memory import open_gpu

    load_library(way)
    gpu = open_gpu()
    target = next(name for name, made in TARGETS.items() if made == (way, precision))
    artifact = exported(target, form, size, folder)
    from emadeploy.build.tensorrt_engine import compile_artifact
    from emadeploy.runtime.trt.compiling import Options

    compile_artifact(artifact, Options(), lambda *_: None)
    before = gpu.free_bytes()
    session = open_session(artifact, Manifest.read(artifact), threads=1, device=None)
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)

    def frame() -> float:
        started = time.perf_counter()
        session.run({"image": image})
        return 1e3 * (time.perf_counter() - started)

    times = timed(frame, runs)
    taken = (before - gpu.free_bytes()) / _MIB
    facts = session.describe()
    session.close()
    kept = {name: facts[name] for name in ("gpu", "version", "driver", "cuda", "memory", "cuda_graph")}
    return {**times, "memory_mb": taken, **kept}


def exported(target: str, form: str, size: tuple[int, int], folder: Path) -> Path:
    """Return the artifact of the shipped model for ``target``, made in ``folder`` unless it lies there."""
    from emadeploy.cli.exporting.make import make_artifact
    from emadeploy.cli.exporting.order import Order
    from emadeploy.export.stage import Wanted

    output = folder / f"{target}-{form}-{size[0]}x{size[1]}"
    if not (output / "manifest.json").is_file():
        order = Order(target=target, output=output, wanted=Wanted(ctal=form), size=size, max_drop="none")
        make_artifact(MODEL, order, report=lambda text: print(text, file=sys.stderr))
    return output


def timed(frame: Callable[[], float], runs: int) -> dict[str, float]:
    """Return median and 90th percentile of ``runs`` calls of ``frame``, which answers milliseconds, after a warm-up."""
    for _ in range(WARM_UPS):
        frame()
    times = sorted(frame() for _ in range(runs))
    return {"ms": statistics.median(times), "p90": times[min(runs - 1, int(0.9 * runs))]}


def table(record: Mapping[str, Any] | None) -> str:
    """Return the table of a record; without one, that there is none and how to make it."""
    if record is None:
        return _NOTHING
    batch = f"batch 1, median of {record['runs']} frames"
    lines = [
        f"Measured on {record['gpu']}, {record['date']}, {record['model']}, {batch}.",
        "",
        "| with | size | precision | published | rewritten | faster | memory published | memory rewritten |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {(row["way"], row["size"], row["precision"], row["form"]): row for row in record["rows"]}
    for way, size, precision, _ in list(rows):  # a measurement that was cut off lacks the last
        for form in FORMS:
            rows.setdefault((way, size, precision, form), {"form": form, "failed": "not measured: it was cut off"})
    reasons: list[str] = []
    for way, size, precision in dict.fromkeys(key[:3] for key in rows):
        published, rewritten = (rows[way, size, precision, form] for form in FORMS)
        reasons += [
            f"{WAYS[way]}, {size}, {precision}, {FORMS[row['form']]}: {row['failed']}"
            for row in (published, rewritten)
            if "failed" in row
        ]
        if "ms" not in published and "ms" not in rewritten:
            continue
        both = "ms" in published and "ms" in rewritten
        faster = f"**{published['ms'] / rewritten['ms']:.1f} x**" if both else ""
        times = [_cell(row, "ms", "{:.2f} ms") for row in (published, rewritten)]
        memory = [_cell(row, "memory_mb", "{:.0f} MiB") for row in (published, rewritten)]
        lines.append(f"| {WAYS[way]} | {size} | {precision} | {' | '.join([*times, faster, *memory])} |")
    if reasons:
        lines += ["", "Not measured:", "", *(f"- {reason}" for reason in dict.fromkeys(reasons))]
    return "\n".join(lines)


def refreshed(document: str, record: Mapping[str, Any] | None) -> str:
    """Return the text of docs/gpu.md with the table of ``record`` in its place."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(record)}\n{END}{tail}"


def _cell(row: Row, name: str, form: str) -> str:
    if name in row:
        return form.format(row[name])
    return "out of memory" if "out of memory" in row["failed"] else "failed"


if __name__ == "__main__":
    sys.exit(main())
