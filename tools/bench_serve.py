"""Measure what `emadeploy serve` costs above inference, against direct calls of the same runtime, in turns.

    python tools/bench_serve.py ARTIFACT [--frame-size 288x384] [--rounds 60] [--json FILE]

In each round one frame is answered four times: by a call of the Runtime, by tritonclient with binary tensors, by a bare
connection with the same bytes, and as a JPEG whose maps come back as npz. The bare connection shows what the server
itself costs: tritonclient takes its answers from the socket in pieces of 4 KiB, and that too is time. All run in the
same engine: the server and the direct calls share one process and one loaded artifact, the client is a process of its
own, as clients are. What a request takes above the Runtime's own call (preprocessing, inference and decoding, as the
server counts it) is its overhead; `request_minus_call_ms` compares with the direct call of the same round, whose engine
may have been faster or slower. Needs an idle machine; exit status 1 where the median overhead over the bare connection
is above the bound: the server is judged, not its client.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import statistics
import sys
import threading
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.runtime.machine import cpu_model, usable_cores
from emadeploy.serve.app import make_app
from emadeploy.serve.gate import Limits
from emadeploy.serve.models import Served, close_models, open_models
from emadeploy.serve.server import Server, bind

#: Milliseconds that a request with binary tensors over a bare connection may take above its inference.
BOUND_MS = 5.0
#: How a request is made.
WAYS = ("binary", "bare", "picture")
_WARM_UP = 5


def client(pipe: Connection, address: str, model: str, frame: np.ndarray) -> None:
    """Ask as told through ``pipe``, and answer with milliseconds: the client's process."""
    import tritonclient.http as triton
    from PIL import Image

    speaker = triton.InferenceServerClient(address)
    given = triton.InferInput("frame", list(frame.shape), "UINT8")
    given.set_data_from_numpy(frame)
    tasks = [output["name"] for output in speaker.get_model_metadata(model)["outputs"]]
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=90)

    def binary() -> None:
        answer = speaker.infer(model, [given])
        for task in tasks:
            answer.as_numpy(task)

    def picture() -> None:
        asked = urllib.request.Request(f"http://{address}/v2/models/{model}/image", file.getvalue())
        with urllib.request.urlopen(asked) as answer, np.load(io.BytesIO(answer.read())) as maps:
            for task in tasks:
                maps[task]

    body, length = triton.InferenceServerClient.generate_request_body([given])
    bare_line = http.client.HTTPConnection(address)

    def bare() -> None:
        bare_line.request("POST", f"/v2/models/{model}/infer", body, {"Inference-Header-Content-Length": str(length)})
        with bare_line.getresponse() as answer:
            if answer.status != 200 or len(answer.read()) < frame.size:
                raise RuntimeError(f"no maps, but status {answer.status}")

    ways = {"binary": binary, "bare": bare, "picture": picture}
    while (way := pipe.recv()) is not None:
        started = time.perf_counter()
        ways[way]()
        pipe.send(1e3 * (time.perf_counter() - started))


def measure(served: Served, pipe: Connection, frame: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of each round: of direct calls, of requests, and of the inference within requests."""
    order = ("call", *WAYS)
    found: dict[str, list[float]] = {name: [] for name in (*order, *(f"{way}_own" for way in WAYS))}
    for index in range(rounds + _WARM_UP):
        times: dict[str, float] = {}
        turn = index % len(order)
        for way in order[turn:] + order[:turn]:  # whoever goes first may find a cooler processor
            if way == "call":
                started = time.perf_counter()
                served.worker.runtime(frame)
                times[way] = 1e3 * (time.perf_counter() - started)
                continue
            before = served.counts.seconds.total
            pipe.send(way)
            times[way] = pipe.recv()
            times[f"{way}_own"] = 1e3 * (served.counts.seconds.total - before)
        if index >= _WARM_UP:
            for name, ms in times.items():
                found[name].append(ms)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return median, 90th percentile and least."""
    return {"p50": statistics.median(values), "p90": float(np.quantile(values, 0.9)), "min": min(values)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--frame-size", default="288x384", help="HxW of the frame")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    height, width = (int(extent) for extent in options.frame_size.split("x"))
    small = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    frame = np.ascontiguousarray(np.repeat(np.repeat(small, 8, axis=0), 8, axis=1))

    models = open_models([options.artifact], 4)
    bound = bind("127.0.0.1", 0)
    address, started = f"127.0.0.1:{bound.getsockname()[1]}", threading.Event()
    server = Server(make_app(models, Limits()), Limits(), bound, started.set)
    thread = threading.Thread(target=server.run)
    thread.start()
    started.wait()
    ours, theirs = multiprocessing.Pipe()
    name, served = next(iter(models.items()))
    asker = multiprocessing.get_context("spawn").Process(target=client, args=(theirs, address, name, frame))
    asker.start()
    try:
        found = measure(served, ours, frame, options.rounds)
        record = report(found, served, options)
    finally:
        ours.send(None)
        asker.join(20)
        server.stop()
        thread.join()
        close_models(models)
    print(json.dumps(record, indent=2))
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if record["overhead_ms"]["bare"]["p50"] <= BOUND_MS else 1


def report(found: dict[str, list[float]], served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record of all that was measured."""
    runtime = served.worker.runtime

    def less(name: str, other: str) -> list[float]:
        return [a - b for a, b in zip(found[name], found[other], strict=True)]

    return {
        "schema": 1,
        "command": "python tools/bench_serve.py",
        "artifact": runtime.spec.name,
        "target": runtime.manifest.target,
        "machine": {"cpu": cpu_model(), "cores": usable_cores()},
        "threads": runtime.describe().get("threads"),
        "frame": options.frame_size,
        "rounds": options.rounds,
        "call_ms": spread(found["call"]),
        "request_ms": {way: spread(found[way]) for way in WAYS},
        "overhead_ms": {way: spread(less(way, f"{way}_own")) for way in WAYS},
        "request_minus_call_ms": {way: spread(less(way, "call")) for way in WAYS},
        "bound_ms": BOUND_MS,
    }


if __name__ == "__main__":
    sys.exit(main())
