"""Device memory: the same through pycuda and every cuda-python; all that is taken is given back, whatever happens."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cuda_fake import RUBBISH, FakeGpu, Machine

from emadeploy.contract.errors import DeviceError
from emadeploy.runtime.trt.cuda_driver import CudaError
from emadeploy.runtime.trt.memory import Arena, Array, open_gpu

TAKING = {
    "stream": ("cuStreamCreate", lambda arena: arena.stream()),
    "event": ("cuEventCreate", lambda arena: arena.event()),
    "buffer": ("cuMemAlloc", lambda arena: arena.buffer(64)),
    "pinned": ("cuMemHostAlloc", lambda arena: arena.pinned((4, 4), "float32")),
    "graph": ("cuGraphInstantiate", lambda arena: arena.graph(arena.stream(), lambda: None)),
}


def test_a_copy_there_and_back(cuda: Machine) -> None:
    gpu = open_gpu()
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with Arena(gpu) as arena:
        stream, buffer = arena.stream(), arena.buffer(values.nbytes)
        there, back = arena.pinned((3, 4), "float32"), arena.pinned((3, 4), "float32")
        assert cuda.kinds() == ["buffer", "pinned", "pinned", "stream"]
        assert cuda.taken() == 48
        there[:] = values
        with gpu.current():
            stream.upload(buffer, there)
            stream.download(back, buffer)
            assert set(back.view(np.uint8).ravel()) == {RUBBISH}, "nothing happens before it is waited for"
            stream.synchronize()
        np.testing.assert_array_equal(back, values)
        del there, back
    assert cuda.kinds() == []


def test_work_is_done_in_its_order(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        stream, buffer = arena.stream(), arena.buffer(1)
        first, second, seen = (arena.pinned((1,), "uint8") for _ in range(3))
        first[:], second[:] = 1, 2
        stream.upload(buffer, first)
        stream.download(seen, buffer)
        stream.upload(buffer, second)
        stream.synchronize()
        assert seen[0] == 1
        del first, second, seen


def test_streams_do_not_wait_for_each_other(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        streams = [arena.stream(), arena.stream()]
        buffer, given, seen = arena.buffer(1), arena.pinned((1,), "uint8"), arena.pinned((1,), "uint8")
        given[:], seen[:] = 7, 0
        streams[0].upload(buffer, given)
        streams[1].download(seen, buffer)
        streams[1].synchronize()
        assert seen[0] == RUBBISH
        assert len({stream.handle for stream in streams}) == 2
        del given, seen


def test_a_graph_does_its_work_at_each_launch_and_none_before(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        stream, buffer = arena.stream(), arena.buffer(4)
        given, answer = arena.pinned((4,), "uint8"), arena.pinned((4,), "uint8")

        def work(given: Array = given, answer: Array = answer) -> None:
            stream.upload(buffer, given)
            stream.download(answer, buffer)

        graph = arena.graph(stream, work)
        assert "template" not in cuda.kinds(), "what the graph was made from is gone"
        answer[:] = 0
        stream.synchronize()
        assert not answer.any()
        for value in (3, 4):
            given[:] = value
            graph.launch(stream)
            stream.synchronize()
            assert answer.tolist() == [value] * 4
        del given, answer, work


def test_a_graph_whose_work_fails(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        stream = arena.stream()

        def work() -> None:
            raise DeviceError("TensorRT says no")

        with pytest.raises(DeviceError, match="TensorRT says no"):
            arena.graph(stream, work)
        assert cuda.kinds() == ["stream"]
        stream.synchronize()  # it captures no more


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_graph_that_cuda_refuses(cuda: Machine, call: str) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        stream = arena.stream()
        cuda.fail(call, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        with pytest.raises(CudaError, match=f"CUDA: {call}.* failed with CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
            arena.graph(stream, lambda: None)
        assert cuda.kinds() == ["stream"]


def test_events_measure_what_is_between(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena, gpu.current():
        stream, buffer, pinned = arena.stream(), arena.buffer(8), arena.pinned((8,), "uint8")
        first, second = arena.event(), arena.event()
        stream.record(first)
        for _ in range(3):
            stream.upload(buffer, pinned)
        stream.record(second)
        assert second.milliseconds_since(first) == 3.0
        del pinned


@pytest.mark.parametrize("kind", TAKING)
def test_where_taking_fails_what_was_taken_before_is_given_back(cuda: Machine, kind: str) -> None:
    call, take = TAKING[kind]
    gpu = open_gpu()
    failed = rf"CUDA: {call}.* failed with (CUDA_ERROR_ILLEGAL_ADDRESS|an illegal memory access)"
    with Arena(gpu) as arena:
        for _, take_other in TAKING.values():
            take_other(arena)
        cuda.fail(call, "CUDA_ERROR_ILLEGAL_ADDRESS")
        with pytest.raises(CudaError, match=failed):
            take(arena)
    assert cuda.kinds() == []
    assert cuda.stack == []


def test_out_of_memory_says_how_much_was_asked_for(cuda: Machine) -> None:
    gpu = open_gpu()
    cuda.capacity = 100 << 20
    with Arena(gpu) as arena:
        arena.buffer(60 << 20)
        with pytest.raises(
            DeviceError,
            match=r"out of memory on NVIDIA Fake 4000: 64.0 MiB asked for .*, 40 of 100 MiB are free\. Close",
        ):
            arena.buffer(64 << 20)
        arena.buffer(40 << 20)
    cuda.fail("cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY")
    with Arena(gpu) as arena, pytest.raises(DeviceError, match=r"1\.0 MiB asked for as page-locked memory of the host"):
        arena.pinned((1 << 20,), "uint8")


def test_closing_twice_and_collecting(cuda: Machine) -> None:
    gpu = open_gpu()
    arena = Arena(gpu)
    arena.buffer(1)
    arena.close()
    arena.close()
    assert cuda.calls.count("cuMemFree") == 1
    forgotten = Arena(gpu)
    forgotten.stream()
    forgotten.buffer(1)
    del forgotten
    assert cuda.kinds() == []


def test_memory_outlives_the_work_on_it(cuda: Machine) -> None:
    gpu = open_gpu()
    with Arena(gpu) as arena:
        stream, buffer, pinned = arena.stream(), arena.buffer(1), arena.pinned((1,), "uint8")
        with gpu.current():
            stream.upload(buffer, pinned)
        del pinned
    calls = cuda.calls
    assert calls.index("cuStreamSynchronize") < min(calls.index("cuMemFree"), calls.index("cuMemFreeHost"))


def test_what_cannot_be_freed_is_told_and_the_rest_is_freed(cuda: Machine, caplog: pytest.LogCaptureFixture) -> None:
    arena = Arena(open_gpu())
    arena.buffer(1)
    arena.buffer(2)
    cuda.fail("cuMemFree", "CUDA_ERROR_ILLEGAL_ADDRESS")
    with caplog.at_level(logging.WARNING):
        arena.close()
    assert "NVIDIA Fake 4000: not all of it could be freed: CUDA: cuMemFree" in caplog.text
    assert cuda.kinds() == ["buffer"]
    cuda.live.clear()


def test_the_context_before_is_there_again(cuda: Machine) -> None:
    gpu = open_gpu()
    cuda.stack.append(77)  # another program's in this thread
    with gpu.current(), gpu.current():
        assert cuda.stack == [77, 500, 500]
    assert cuda.stack == [77]
    with pytest.raises(ZeroDivisionError), gpu.current():
        _ = 1 / 0
    assert cuda.stack == [77]
    with Arena(gpu) as arena:
        arena.buffer(1)
        assert cuda.stack == [77]
    assert cuda.stack.pop() == 77


def test_any_thread_may_work_and_close(cuda: Machine) -> None:
    gpu = open_gpu()
    arena = Arena(gpu)
    stream, buffer, pinned = arena.stream(), arena.buffer(1), arena.pinned((1,), "uint8")
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with gpu.current():
                stream.upload(buffer, pinned)
                stream.synchronize()
            arena.close()
            assert cuda.stack == []
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == []
    assert cuda.kinds() == []


def test_one_gpu_is_opened_once(install_cuda: Callable[..., Machine]) -> None:
    machine = install_cuda("cuda-python-13.5.0", (FakeGpu("first"), FakeGpu("second")))
    assert open_gpu() is open_gpu(0)
    assert open_gpu(1).device.name == "second"
    assert machine.retained == [0, 1]


def test_what_it_says_of_itself(cuda: Machine) -> None:
    gpu = open_gpu()
    facts = gpu.describe()
    assert facts["gpu"] == "NVIDIA Fake 4000"
    assert (facts["compute_capability"], facts["cuda"]) == ("8.9", "12.6")
    assert facts["memory"].split()[0] == gpu.driver.package
    assert gpu.free_bytes() == 8 << 30


EXIT = """
import sys
sys.path.insert(0, {tests!r})
from cuda_fake import Machine, fake_cuda_python
machine = Machine()
sys.modules.update(fake_cuda_python(machine, "cuda-python-13.5.0"))
import atexit
atexit.register(lambda: print("left:", machine.kinds(), "released:", machine.released))
from emadeploy.runtime.trt.memory import Arena, Array, open_gpu
arena = Arena(open_gpu())
arena.stream(), arena.buffer(8), arena.pinned((8,), "uint8")
print("taken:", machine.kinds())
"""


def test_at_exit_everything_is_given_back() -> None:
    code = EXIT.format(tests=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["taken: ['buffer', 'pinned', 'stream']", "left: [] released: [0]"]
