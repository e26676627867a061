"""What the copies of a frame to the GPU and of its maps back take: they are part of a run, which does not tell them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from emadeploy.runtime.trt.memory import Arena, Gpu
from emadeploy.runtime.trt.values import IoTensor

#: Times that each copy is timed, after one that is not.
_RUNS = 11


def copy_times(gpu: Gpu, tensors: Sequence[IoTensor]) -> dict[str, float]:
    """Return {'copy_in', 'copy_out'}: median milliseconds of the copies of all inputs, and of all outputs.

    Timed on page-locked memory and buffers of their own, as large as the engine's, one after the other with nothing
    else on the GPU. Raises DeviceError where there is no memory for them.
    """
    with Arena(gpu) as arena, gpu.current():
        stream = arena.stream()
        pairs = []
        for tensor in tensors:
            array = arena.pinned(tensor.shape, tensor.dtype)
            array.fill(0)
            pairs.append((tensor.is_input, array, arena.buffer(array.nbytes)))

        def copy_in() -> None:
            for is_input, array, buffer in pairs:
                if is_input:
                    stream.upload(buffer, array)
            stream.synchronize()

        def copy_out() -> None:
            for is_input, array, buffer in pairs:
                if not is_input:
                    stream.download(array, buffer)
            stream.synchronize()

        return {"copy_in": _median_ms(copy_in), "copy_out": _median_ms(copy_out)}


def _median_ms(work: Callable[[], None]) -> float:
    times = []
    for _ in range(1 + _RUNS):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return median(times[1:])
