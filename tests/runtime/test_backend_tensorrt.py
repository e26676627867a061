"""The TensorRT backend over fakes of each version of TensorRT and of CUDA: answers, memory, graphs, and refusals.

The fake engine computes with ONNX Runtime, in the order of its stream and no earlier than the stream is waited for.
"""

import hashlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorrt_fake
from cuda_fake import FakeGpu, Machine
from tensorrt_fake import VERSIONS, fake

from emadeploy import load
from emadeploy.contract.errors import ArtifactError, BackendMissing, DeviceError, EmadeployError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.backends import opener
from emadeploy.runtime.backends import tensorrt as backend
from emadeploy.runtime.profile import profile
from emadeploy.runtime.profiles import tensorrt as profiles
from emadeploy.runtime.trt import compiling, first_load, record
from emadeploy.runtime.trt.child import compile_plan
from emadeploy.runtime.trt.device import here
from emadeploy.runtime.trt.library import load_library
from emadeploy.runtime.trt.record import EngineKey, EngineRecord, plan_name
from emadeploy.runtime.trt.values import BuildSettings

FRAMES = [np.random.default_rng(seed).normal(0, 1, (1, 3, 64, 96)).astype(np.float32) for seed in range(6)]
TARGETS = {"tensorrt": "trt-fp32", "tensorrt_rtx": "trt-rtx-fp32"}
Session = backend.TensorRtSession


@pytest.fixture
def install_trt(monkeypatch: pytest.MonkeyPatch, install_cuda: Callable[..., Machine]) -> Iterator[Callable[..., Any]]:
    """Return a function that installs versions of TensorRT and CUDA's package, and returns TensorRT's world and the
    machine that it works on."""

    def install(version: str = "tensorrt-10.3", cuda: str = "cuda-python-13.5.0", **facts: Any) -> Any:
        machine = install_cuda(cuda, **facts)
        module = fake(version)

        def enqueue(stream: int, memory: Mapping[int, int], work: Callable[[], None]) -> None:
            def checked() -> None:
                for address, size in memory.items():
                    kind, held = machine.live[address]
                    assert (kind, len(held)) == ("buffer", size), "an address that is another tensor's"
                work()

            machine.enqueue(stream, checked)

        module.world.enqueue = enqueue
        monkeypatch.setitem(sys.modules, module.__name__, module)
        load_library.cache_clear()
        return module.world, machine

    monkeypatch.delenv(backend.GRAPH_CHOICE, raising=False)
    yield install
    load_library.cache_clear()


@pytest.fixture
def make_engine(make_artifact: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes an artifact with an engine of what is installed."""

    def make(name: str = "tensorrt", folder: str = "artifact", *, alter: Callable[[bytes], bytes] = bytes) -> Path:
        artifact = make_artifact(folder, target=TARGETS[name], precision={})
        library = load_library(name)
        parsed = library.parse((artifact / "model.onnx").read_bytes(), "")
        plan = alter(library.build_serialized_network(parsed, library.config(parsed, BuildSettings())))
        (artifact / "made").write_bytes(plan)
        digest = hashlib.sha256(plan).hexdigest()
        key = EngineKey.here(library, Manifest.read(artifact).files["model.onnx"].sha256, here())
        EngineRecord(plan_name(digest), digest, len(plan), key).write(artifact, artifact / "made")
        return artifact

    return make


Install = Callable[..., Any]
Make = Callable[..., Path]


def open_session(artifact: Path, device: str | None = None) -> Session:
    return backend.open_session(artifact, Manifest.read(artifact), threads=1, device=device)


def wanted(artifact: Path, frame: Any) -> dict[str, Any]:
    """What the graph answers in ONNX Runtime."""
    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": frame}), strict=True))


def check(answers: Mapping[str, Any], artifact: Path, frame: Any) -> None:
    truth = wanted(artifact, frame)
    assert set(answers) == set(truth)
    for name, answer in answers.items():
        np.testing.assert_array_equal(answer, truth[name])


@pytest.mark.parametrize("cuda", ["pycuda-2026.1", "cuda-python-12.2.1", "cuda-python-13.5.0"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_answers_what_the_graph_says(install_trt: Install, make_engine: Make, version: str, cuda: str) -> None:
    world, machine = install_trt(version, cuda)
    artifact = make_engine(version.split("-")[0])
    session = open_session(artifact)
    for frame in FRAMES[:3]:
        check(session.run({"image": frame}), artifact, frame)
    facts = session.describe()
    assert (facts["engine"], facts["version"]) == (version.split("-")[0], world.version)
    assert (facts["device"], facts["gpu"], facts["cuda_graph"]) == ("gpu:0", "NVIDIA Fake 4000", "yes")
    assert str(facts["memory"]).split()[0] == cuda.rpartition("-")[0]
    assert facts["context_mb"] == 1
    session.close()
    session.close()
    assert machine.kinds() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_times_of_layers_are_those_of_the_profiler(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    layers_of = tensorrt_fake.layers_of

    def named(model: Any) -> list[dict[str, Any]]:
        named = zip(layers_of(model), ("backbone.0/Conv", "heads.depth/Split"), strict=True)
        return [{**layer, "Name": name, "Metadata": f"[ONNX Layer: {name}]"} for layer, name in named]

    monkeypatch.setattr(tensorrt_fake, "layers_of", named)
    _, machine = install_trt(version)
    layers = profile(make_engine(version.split("-")[0]), np.zeros((50, 70, 3), np.uint8), runs=3)
    assert [(one.name, one.kind, one.branch, one.precision, one.milliseconds) for one in layers] == [
        ("backbone.0/Conv", "CaskConvolution", "backbone", "fp32", 2.0),
        ("heads.depth/Split", "kgen", "heads.depth", "fp32", 1.0),
    ]
    assert machine.kinds() == []


def test_layers_that_the_inspector_does_not_know_are_told_by_name(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_trt()
    monkeypatch.setattr(profiles, "profile_runs", lambda *_, **__: ([], {"ctal/MatMul + x": [1.0, 3.0, 2.0]}))
    (layer,) = profile(make_engine(), np.zeros((50, 70, 3), np.uint8))
    assert (layer.name, layer.kind, layer.branch, layer.milliseconds) == ("ctal/MatMul + x", "unknown", "ctal", 2.0)


def test_a_profiler_that_hears_nothing_is_an_error(install_trt: Install, make_engine: Make, monkeypatch: Any) -> None:
    install_trt()
    monkeypatch.setattr(profiles, "profile_runs", lambda *_, **__: ([], {}))
    with pytest.raises(DeviceError, match="told its profiler no time of any layer"):
        profile(make_engine(), np.zeros((50, 70, 3), np.uint8))


def test_through_the_public_face(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    artifact = make_engine()
    frame = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    with load(artifact) as perception:
        result = perception(frame)
        raw = perception.raw(frame)
        assert perception.describe()["target"] == "trt-fp32"
    assert result.depth is not None
    assert result.depth.shape == (50, 70)
    assert set(raw) == {"semseg", "depth", "normals"}


def test_answers_belong_to_the_caller(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    session = open_session(make_engine())
    first = session.run({"image": FRAMES[0]})
    kept = {name: answer.copy() for name, answer in first.items()}
    session.run({"image": FRAMES[1]})
    session.close()
    for name, answer in first.items():
        assert answer.flags.owndata
        assert answer.flags.writeable
        np.testing.assert_array_equal(answer, kept[name])


def test_a_frame_is_one_launch(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    session = open_session(make_engine())
    taken = machine.kinds()
    machine.calls.clear()
    session.run({"image": FRAMES[0]})
    assert [call for call in machine.calls if "Ctx" not in call] == ["cuGraphLaunch", "cuStreamSynchronize"]
    assert machine.kinds() == taken, "nothing is allocated for a frame"
    assert taken == ["buffer"] * 4 + ["graph"] + ["pinned"] * 4 + ["stream"]
    session.close()


def test_without_a_graph_it_answers_the_same(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, machine = install_trt()
    monkeypatch.setenv(backend.GRAPH_CHOICE, "0")
    artifact = make_engine()
    session = open_session(artifact)
    assert session.describe()["cuda_graph"] == "no: not asked for"
    assert "graph" not in machine.kinds()
    for frame in FRAMES[:2]:
        check(session.run({"image": frame}), artifact, frame)
    session.close()


def test_a_graph_that_cannot_be_made(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    machine.fail("cuStreamEndCapture", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    with caplog.at_level(logging.WARNING):
        session = open_session(artifact)
    why = "CUDA: cuStreamEndCapture failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    assert session.describe()["cuda_graph"] == f"no: {why}"
    assert f"no CUDA graph, frames cost the CPU more: {why}" in caplog.text
    check(session.run({"image": FRAMES[0]}), artifact, FRAMES[0])
    session.close()
    monkeypatch.setenv(backend.GRAPH_CHOICE, "1")
    machine.fail("cuStreamEndCapture", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    with pytest.raises(
        DeviceError, match=rf"EMADEPLOY_CUDA_GRAPH=1 asks for a CUDA graph, and none can be made: {why}"
    ):
        open_session(artifact)
    assert machine.kinds() == []
    open_session(artifact).close()


def test_an_engine_that_allocates_while_it_runs_has_no_graph(install_trt: Install, make_engine: Make) -> None:
    world, machine = install_trt()
    artifact = make_engine()
    usual = world.enqueue

    def allocating(stream: int, memory: Mapping[int, int], work: Callable[[], None]) -> None:
        usual(stream, memory, work)
        machine.spoil(stream)

    world.enqueue = allocating
    session = open_session(artifact)
    assert "CAPTURE_INVALIDATED" in str(session.describe()["cuda_graph"])
    check(session.run({"image": FRAMES[0]}), artifact, FRAMES[0])
    session.close()


def test_a_choice_of_graph_that_is_none(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_trt()
    monkeypatch.setenv(backend.GRAPH_CHOICE, "yes")
    with pytest.raises(SpecError, match=r"EMADEPLOY_CUDA_GRAPH='yes' is none of '1'"):
        open_session(make_engine())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_frames_in_flight_are_answered_as_one_by_one(install_trt: Install, make_engine: Make, depth: int) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    with session.queue(depth) as queue:
        assert machine.kinds().count("stream") == 1 + depth
        for frame, job in zip(FRAMES, queue.map({"image": frame} for frame in FRAMES), strict=True):
            check(job.result(), artifact, frame)
    session.close()


def test_a_second_frame_starts_before_the_first_is_waited_for(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    session = open_session(make_engine())
    with session.queue(2) as queue:
        machine.calls.clear()
        jobs = [queue.submit({"image": frame}) for frame in FRAMES[:2]]
        assert [call for call in machine.calls if "Ctx" not in call] == ["cuGraphLaunch"] * 2
        assert len(jobs) == 2
    session.close()


def test_a_stream_answers_what_calls_do(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    frames = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in range(5)]
    with load(make_engine()) as perception:
        one_by_one = [perception(frame).depth for frame in frames]
        streamed = [result.depth for result in perception.stream(frames)]
    for one, other in zip(one_by_one, streamed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert machine.kinds() == []


def test_a_queue_outlives_its_session(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    queue = session.queue()
    session.close()
    check(queue.submit({"image": FRAMES[0]}).result(), artifact, FRAMES[0])
    queue.close()
    assert machine.kinds() == []


@pytest.fixture
def told_of_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """Return a function that has a machine note the ends of TensorRT's objects among its calls."""

    def tell(machine: Machine) -> None:
        for cls, name in ((tensorrt_fake._IExecutionContext, "~context"), (tensorrt_fake._ICudaEngine, "~engine")):
            end = lambda _, name=name: machine.calls.append(name if machine.stack else f"{name} without a GPU")  # noqa: E731
            monkeypatch.setattr(cls, "__del__", end, raising=False)

    return tell


@pytest.mark.parametrize("how", ["closed", "forgotten", "of a queue"])
def test_tensorrts_objects_end_after_their_work_and_before_their_memory(
    install_trt: Install, make_engine: Make, told_of_ends: Callable[[Machine], None], how: str
) -> None:
    _, machine = install_trt()
    session = open_session(make_engine())
    told_of_ends(machine)
    queue = session.queue(1)
    if how == "of a queue":
        session.close()
        machine.calls.clear()
        queue.submit({"image": FRAMES[0]})
        del queue, session
    else:
        queue.close()
        machine.calls.clear()
        slot = session._take()
        slot.start({"image": FRAMES[0]})
        session._give(slot)
        if how == "closed":
            session.close()
        del session, slot
    ends = [call for call in machine.calls if call in ("cuStreamSynchronize", "cuMemFree") or "~" in call]
    assert [call for call in ends if call != "cuMemFree"] == ["cuStreamSynchronize", "~context", "~engine"]
    assert ends.index("~context") < ends.index("cuMemFree")
    assert machine.kinds() == []


EXIT = """
import sys
sys.path.insert(0, {tests!r})
import tensorrt_fake
from cuda_fake import Machine, fake_cuda_python
machine = Machine()
sys.modules.update(fake_cuda_python(machine, "cuda-python-13.5.0"), tensorrt=tensorrt_fake.fake("tensorrt-10.3"))
sys.modules["tensorrt"].world.enqueue = lambda stream, memory, work: machine.enqueue(stream, work)
tensorrt_fake._IExecutionContext.__del__ = lambda self: machine.calls.append("~context")
tensorrt_fake._ICudaEngine.__del__ = lambda self: machine.calls.append("~engine")
import atexit
atexit.register(lambda: print([call for call in machine.calls if "~" in call or "Release" in call], machine.kinds()))
from emadeploy import load
perception = load({artifact!r})
machine.calls.clear()
"""


def test_at_exit_tensorrts_objects_end_before_the_gpus_context(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    code = EXIT.format(tests=str(Path(__file__).parents[1]), artifact=str(make_engine()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['~context', '~engine', 'cuDevicePrimaryCtxRelease'] []"


def test_threads_have_a_context_each(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    together = threading.Barrier(3)
    errors: list[BaseException] = []

    def work(frame: Any) -> None:
        try:
            together.wait()
            for _ in range(4):
                check(session.run({"image": frame}), artifact, frame)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(frame,)) for frame in FRAMES[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert 1 <= machine.kinds().count("stream") <= 3
    session.close()
    assert machine.kinds() == []


def test_a_session_that_is_closed_while_it_runs(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    slot = session._take()
    slot.start({"image": FRAMES[0]})
    session.close()
    check(slot.wait(), artifact, FRAMES[0])
    session._give(slot)
    assert machine.kinds() == []


@pytest.mark.parametrize("bad", [FRAMES[0][:, :, :-1], FRAMES[0].astype(np.float64)])
def test_a_frame_of_another_form(install_trt: Install, make_engine: Make, bad: Any) -> None:
    install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    with pytest.raises(
        DeviceError, match=r"input 'image' is float\d+ \(.*\); the engine takes float32 \(1, 3, 64, 96\)"
    ):
        session.run({"image": bad})
    check(session.run({"image": FRAMES[1]}), artifact, FRAMES[1])
    session.close()


def test_a_frame_at_which_tensorrt_fails(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_trt()
    monkeypatch.setenv(backend.GRAPH_CHOICE, "0")
    artifact = make_engine()
    session = open_session(artifact)
    with monkeypatch.context() as broken:
        broken.setattr(tensorrt_fake._IExecutionContext, "execute_async_v3", lambda *_: False)
        load_library("tensorrt").logger.errors.append("IExecutionContext::enqueueV3: Error Code 1")
        with pytest.raises(DeviceError, match=r"TensorRT 10\.3\S* failed while running: .*enqueueV3: Error Code 1"):
            session.run({"image": FRAMES[0]})
    check(session.run({"image": FRAMES[1]}), artifact, FRAMES[1])
    session.close()


def test_an_error_on_the_gpu_is_one_of_that_frame(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    session = open_session(artifact)
    machine.fail("cuStreamSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceError, match=r"cuStreamSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS \(an illegal"):
        session.run({"image": FRAMES[0]})
    session.close()
    assert machine.kinds() == []


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(
    "call",
    ["cuMemHostAlloc", "cuMemAlloc", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuCtxPushCurrent"],
)
def test_wherever_loading_fails_nothing_is_left(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    _, machine = install_trt()
    monkeypatch.setenv(backend.GRAPH_CHOICE, "1")
    artifact = make_engine()
    machine.fail(call, "CUDA_ERROR_LAUNCH_FAILED", after)
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED") as failed:
        open_session(artifact)
    assert machine.kinds() == [], f"it does not wait until {failed} is forgotten"
    assert machine.stack == []


def test_out_of_memory_for_buffers(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    machine.capacity = 80_000
    with pytest.raises(
        DeviceError, match=r"out of memory on NVIDIA Fake 4000: 0\.1 MiB asked for as a buffer of the GPU"
    ):
        load(artifact)
    assert machine.kinds() == []


def test_out_of_memory_for_activations(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    monkeypatch.setattr(tensorrt_fake._ICudaEngine, "create_execution_context", lambda *_: None)
    with pytest.raises(DeviceError, match=r"^TensorRT 10\.3\S* cannot make its execution context"):
        load(artifact)
    machine.capacity = 1 << 19
    with pytest.raises(
        DeviceError, match=r"out of memory on NVIDIA Fake 4000: an execution context takes 1 MiB, 0 MiB are free"
    ):
        load(artifact)


def test_no_gpu(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    artifact = make_engine()
    machine.gpus = ()
    machine.started = False
    with pytest.raises(DeviceError, match="no NVIDIA GPU on this machine"):
        load(artifact)


def test_no_tensorrt(install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    install_trt()
    artifact = make_engine()
    load_library.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        BackendMissing, match=r"engine 'tensorrt' needs TensorRT, .*pip install 'emadeploy\[tensorrt\]'"
    ):
        load(artifact)


def test_both_engines_have_a_backend() -> None:
    assert opener("tensorrt") is opener("tensorrt_rtx") is backend.open_session


def test_another_major_version_of_tensorrt(install_trt: Install, make_engine: Make) -> None:
    install_trt("tensorrt-10.3")
    artifact = make_engine()
    install_trt("tensorrt-11.4")
    with pytest.raises(
        DeviceError, match=r"needs TensorRT 10, another major .*here is TensorRT 11\.4.*emadeploy build"
    ):
        load(artifact)


def test_an_engine_from_another_gpu(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    artifact = make_engine()
    before = sorted(path.name for path in artifact.iterdir())
    install_trt(gpus=(FakeGpu("NVIDIA Other 5000", (12, 0)),))
    with pytest.raises(
        DeviceError, match=r"for another GPU\. It was built for .*Fake 4000.*here is .*Other 5000.*emadeploy build"
    ):
        load(artifact)
    assert sorted(path.name for path in artifact.iterdir()) == before, "it is not replaced in silence"


@pytest.mark.parametrize("damage", ["a byte", "truncated", "missing"])
def test_a_damaged_engine_is_never_deserialised(
    install_trt: Install, make_engine: Make, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    install_trt()
    artifact = make_engine()
    (plan,) = artifact.glob("*.plan")
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        plan.unlink()
    else:
        plan.write_bytes(data if damage == "a byte" else data[:-10])
    monkeypatch.setattr(tensorrt_fake._Runtime, "deserialize_cuda_engine", pytest.fail)
    words = "is missing" if damage == "missing" else "differs from the digest in engine.json: damaged or altered"
    with pytest.raises(ArtifactError, match=rf"engine-\w+\.plan {words}.*emadeploy build"):
        load(artifact)


def test_a_whole_engine_that_tensorrt_does_not_take(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    artifact = make_engine(alter=lambda plan: plan[:4])
    with pytest.raises(DeviceError, match=r"TensorRT 10\.3\S* cannot load the engine: a plan with another magic"):
        load(artifact)


def test_an_engine_of_other_tensors(install_trt: Install, make_engine: Make) -> None:
    install_trt()
    artifact = make_engine(alter=lambda plan: plan.replace(b"depth", b"dEpth"))
    with pytest.raises(ArtifactError, match=r"engine-\w+\.plan: the graph's outputs are .*dEpth.*; the manifest says"):
        load(artifact)


def test_an_engine_with_a_dla_is_loaded_on_its_core(install_trt: Install, make_engine: Make) -> None:
    world, _ = install_trt()
    artifact = make_engine()
    told = json.loads((artifact / record.RECORD_NAME).read_text())
    (artifact / record.RECORD_NAME).write_text(json.dumps({**told, "settings": {"dla": 1}}))
    open_session(artifact).close()
    assert world.loaded_on == [1]


@pytest.mark.parametrize("device", ["cpu", "cuda", "gpu:", "gpu:x", "dla"])
def test_devices_that_are_none(install_trt: Install, make_engine: Make, device: str) -> None:
    install_trt()
    advice = "; for the CPU export for openvino-int8 or onnxruntime-int8" if device == "cpu" else "$"
    with pytest.raises(DeviceError, match=rf"device '{device}': TensorRT runs on NVIDIA's GPUs alone, .*{advice}"):
        load(make_engine(), device=device)


def test_one_of_two_gpus(install_trt: Install, make_engine: Make) -> None:
    install_trt(gpus=(FakeGpu(), FakeGpu()))
    artifact = make_engine()
    with load(artifact, device="gpu:1") as perception:
        assert perception.describe()["device"] == "gpu:1"
    with load(artifact, device="gpu") as perception:
        assert perception.describe()["device"] == "gpu:0"
    with pytest.raises(DeviceError, match="device 'gpu:2' is not here"):
        load(artifact, device="gpu:2")


# The first load on a device compiles


@pytest.fixture
def here_and_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile in this process, where the fake is."""

    def run_child(order: Mapping[str, Any], report: Any) -> dict[str, Any]:
        import io

        return compile_plan(json.loads(json.dumps(order)), io.StringIO())

    monkeypatch.setattr(compiling, "run_child", run_child)


def test_the_first_load_compiles_and_says_so(
    install_trt: Install, make_artifact: Make, here_and_now: None, caplog: pytest.LogCaptureFixture
) -> None:
    world, _ = install_trt()
    artifact = make_artifact(target="trt-fp32", precision={})
    with caplog.at_level(logging.WARNING):
        session = open_session(artifact)
    assert f"{artifact} is compiled for NVIDIA Fake 4000 by TensorRT 10.3" in caplog.text
    assert f"`emadeploy build {artifact}` does it beforehand" in caplog.text
    check(session.run({"image": FRAMES[0]}), artifact, FRAMES[0])
    session.close()
    caplog.clear()
    open_session(artifact).close()
    assert caplog.text == ""
    assert len(world.configs) == 1


def test_where_nothing_can_be_written_build_is_offered(
    install_trt: Install, make_artifact: Make, here_and_now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = install_trt()
    artifact = make_artifact(target="trt-fp32", precision={})
    monkeypatch.setattr(first_load.os, "access", lambda *_: False)
    with pytest.raises(ArtifactError, match=rf"not compiled yet, .* no right to write.*emadeploy build {artifact}"):
        load(artifact)
    assert world.configs == []


def test_where_compiling_fails(install_trt: Install, make_artifact: Make, here_and_now: None) -> None:
    world, _ = install_trt()
    artifact = make_artifact(target="trt-fp32", precision={})
    world.fails = "Out of memory"
    with pytest.raises(
        EmadeployError, match=r"could not be compiled at its first load: .*Out of memory.*emadeploy build"
    ):
        load(artifact)
    assert not (artifact / record.RECORD_NAME).exists()


def test_a_precision_that_is_not_obtained_is_a_failure(
    install_trt: Install, make_artifact: Make, here_and_now: None
) -> None:
    install_trt()
    artifact = make_artifact(target="trt-int8", precision={})
    with pytest.raises(ArtifactError, match=r"int8 was asked for, and its layers run in fp32 alone.*emadeploy build"):
        load(artifact)
    assert sorted(path.name for path in artifact.iterdir()) == ["manifest.json", "model.onnx"]


def test_another_gpu_than_the_first_is_compiled_for_by_itself(
    install_trt: Install, make_artifact: Make, here_and_now: None
) -> None:
    install_trt(gpus=(FakeGpu(), FakeGpu("other", (8, 0))))
    artifact = make_artifact(target="trt-fp32", precision={})
    with pytest.raises(ArtifactError, match=r"gpu:1 is not the first GPU, .*CUDA_VISIBLE_DEVICES=1 emadeploy build"):
        load(artifact, device="gpu:1")


def test_the_copies_of_a_run_are_timed_and_leave_nothing(install_trt: Install, make_engine: Make) -> None:
    _, machine = install_trt()
    with load(make_engine()) as perception:
        before = set(machine.live)
        copies = perception.copies()
        assert set(copies) == {"copy_in", "copy_out"}
        assert all(ms >= 0 for ms in copies.values())
        assert set(machine.live) == before
