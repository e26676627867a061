"""A plain loop over ONNX Runtime, without emadeploy: the median milliseconds of a run, on stdout.

    python tools/loop_onnxruntime.py MODEL.onnx THREADS WARM_UPS CALLS

As `onnxruntime_perf_test -I` has it: default options but the threads, a random input that stays the same. What
`check_bench.py` holds the bench against.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Measure what ``sys.argv`` names."""
    path, threads, warm_ups, calls = sys.argv[1], *map(int, sys.argv[2:])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs = {
        given.name: rng.integers(0, 255, given.shape).astype(np.uint8)
        if given.type == "tensor(uint8)"
        else rng.standard_normal(given.shape, np.float32)
        for given in session.get_inputs()
    }
    for _ in range(warm_ups):
        session.run(None, inputs)
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        session.run(None, inputs)
        times.append(1e3 * (time.perf_counter() - started))
    print(statistics.median(times))


if __name__ == "__main__":
    main()
