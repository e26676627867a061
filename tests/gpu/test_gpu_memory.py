"""Device memory on a real GPU, through pycuda and cuda-python."""

import threading
from typing import Any

import numpy as np
import pytest

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.trt.device import here
from emadeploy.runtime.trt.memory import Arena, Gpu

pytestmark = pytest.mark.gpu


def test_the_device_has_a_name_and_facts(gpu: Gpu) -> None:
    device = here(0, gpu.driver)
    assert device == gpu.device
    assert device.name
    assert all(part.isdigit() for part in device.compute_capability.split("."))
    assert device.memory_bytes > 1 << 28
    assert 0 < gpu.free_bytes() <= device.memory_bytes


def test_copies_there_and_back(gpu: Gpu) -> None:
    values = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    with Arena(gpu) as arena, gpu.current():
        stream, buffer = arena.stream(), arena.buffer(values.nbytes)
        there, back = arena.pinned(values.shape, "float32"), arena.pinned(values.shape, "float32")
        there[:], back[:] = values, 0
        stream.upload(buffer, there)
        stream.download(back, buffer)
        stream.synchronize()
        np.testing.assert_array_equal(back, values)
        del there, back


def test_a_graph_is_launched_again_and_again(gpu: Gpu) -> None:
    with Arena(gpu) as arena, gpu.current():
        stream, buffer = arena.stream(), arena.buffer(1 << 20)
        given, answer = arena.pinned((1 << 20,), "uint8"), arena.pinned((1 << 20,), "uint8")

        def work(given: Any = given, answer: Any = answer) -> None:
            stream.upload(buffer, given)
            stream.download(answer, buffer)

        graph = arena.graph(stream, work)
        for value in (1, 2, 3):
            given[:] = value
            graph.launch(stream)
            stream.synchronize()
            assert (answer == value).all()
        del given, answer, work


def test_a_wait_inside_of_a_graph_is_refused_and_the_stream_goes_on(gpu: Gpu) -> None:
    with Arena(gpu) as arena, gpu.current():
        stream = arena.stream()
        with pytest.raises(DeviceError, match=r"STREAM_CAPTURE_UNSUPPORTED|not permitted when stream is capturing"):
            arena.graph(stream, stream.synchronize)
        stream.synchronize()


def test_events_follow_each_other(gpu: Gpu) -> None:
    with Arena(gpu) as arena, gpu.current():
        stream, buffer, pinned = arena.stream(), arena.buffer(1 << 26), arena.pinned((1 << 26,), "uint8")
        first, second = arena.event(), arena.event()
        stream.record(first)
        stream.upload(buffer, pinned)
        stream.record(second)
        assert second.milliseconds_since(first) > 0
        del pinned


def test_more_memory_than_there_is(gpu: Gpu) -> None:
    with Arena(gpu) as arena, pytest.raises(DeviceError, match=r"out of memory on .*MiB asked for as a buffer"):
        arena.buffer(2 * gpu.device.memory_bytes)


def test_nothing_is_lost(gpu: Gpu) -> None:
    def once() -> None:
        with Arena(gpu) as arena:
            stream = arena.stream()
            arena.event()
            arena.buffer(64 << 20)
            arena.pinned((1 << 20,), "uint8")
            arena.graph(stream, lambda: None)

    once()  # CUDA keeps some for itself at the first time
    before = gpu.free_bytes()
    for _ in range(20):
        once()
    assert before - gpu.free_bytes() < 32 << 20, "of 20 x 64 MiB"


def test_another_thread_works_and_closes(gpu: Gpu) -> None:
    arena = Arena(gpu)
    stream, buffer, pinned = arena.stream(), arena.buffer(16), arena.pinned((16,), "uint8")
    errors: list[BaseException] = []

    def elsewhere(pinned: Any = pinned) -> None:
        try:
            with gpu.current():
                stream.upload(buffer, pinned)
                stream.synchronize()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == []
    del pinned, elsewhere, thread
    arena.close()


def test_beside_torch(gpu: Gpu, cuda_torch: None) -> None:
    import torch

    ours = torch.arange(8, device="cuda")
    with Arena(gpu) as arena:
        stream, buffer, pinned = arena.stream(), arena.buffer(8), arena.pinned((8,), "uint8")
        with gpu.current():
            stream.upload(buffer, pinned)
            stream.synchronize()
        del pinned
    assert (ours + 1).sum().item() == 36
