"""Engines on a real GPU, against ONNX Runtime on the CPU: what ships first, then what else can show the numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from emadeploy import load
from emadeploy.contract.errors import BackendMissing
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.backends import tensorrt as backend
from emadeploy.runtime.profile import profile
from emadeploy.runtime.trt.library import load_library
from emadeploy.runtime.trt.memory import Gpu, open_gpu

pytestmark = pytest.mark.gpu
FRAMES = [np.random.default_rng(seed).normal(0, 1, (1, 3, 64, 96)).astype(np.float32) for seed in range(6)]
TARGETS = {"tensorrt": "trt-fp32", "tensorrt_rtx": "trt-rtx-fp32"}


@pytest.fixture(params=list(TARGETS))
def engine(request: pytest.FixtureRequest, gpu: Gpu, make_artifact: Callable[..., Path]) -> Path:
    """An artifact that is compiled on this GPU by each library that takes it, through each package for memory."""
    try:
        library = load_library(request.param)
    except BackendMissing as error:
        pytest.skip(str(error))
    capability = gpu.device.compute_capability
    if (
        request.param == "tensorrt_rtx"
        and f"SM{capability.replace('.', '')}" not in library.module.ComputeCapability.__members__
    ):
        pytest.skip(f"TensorRT for RTX {library.version_text} does not build for {gpu.device.name} ({capability})")
    artifact = make_artifact(target=TARGETS[request.param], precision={})
    open_session(artifact).close()
    return artifact


def open_session(artifact: Path) -> backend.TensorRtSession:
    return backend.open_session(artifact, Manifest.read(artifact), threads=1, device=None)


def wanted(artifact: Path, frame: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": frame}), strict=True))


def check(answers: Any, artifact: Path, frame: Any) -> None:
    for name, truth in wanted(artifact, frame).items():
        # TensorRT takes TF32 for fp32 convolutions on cards that have it: ten bits of a product.
        np.testing.assert_allclose(answers[name], truth, rtol=0, atol=2e-2)


def test_an_engine_answers_what_the_graph_says(engine: Path) -> None:
    session = open_session(engine)
    for frame in FRAMES:
        check(session.run({"image": frame}), engine, frame)
    assert session.describe()["cuda_graph"] == "yes"
    session.close()


def test_it_answers_the_same_without_a_graph(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(engine)
    answers = session.run({"image": FRAMES[0]})
    monkeypatch.setenv(backend.GRAPH_CHOICE, "0")
    plain = open_session(engine)
    for name, answer in plain.run({"image": FRAMES[0]}).items():
        np.testing.assert_array_equal(answer, answers[name])


def test_many_frames_in_flight(engine: Path) -> None:
    session = open_session(engine)
    one_by_one = [session.run({"image": frame}) for frame in FRAMES]
    with session.queue(3) as queue:
        for job, alone in zip(queue.map({"image": frame} for frame in FRAMES), one_by_one, strict=True):
            for name, answer in job.result().items():
                np.testing.assert_array_equal(answer, alone[name])
    session.close()


def test_loading_and_closing_loses_nothing(engine: Path, gpu: Gpu) -> None:
    for _ in range(2):
        open_session(engine).close()
    before = gpu.free_bytes()
    for _ in range(5):
        open_session(engine).close()
    assert before - gpu.free_bytes() < 32 << 20


def test_a_frame_through_the_public_face(engine: Path) -> None:
    with load(engine) as perception:
        result = perception(np.zeros((50, 70, 3), np.uint8))
    assert result.depth is not None
    assert result.depth.shape == (50, 70)


def test_onnxruntime_on_cuda(make_artifact: Callable[..., Path]) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip(f"onnxruntime {onnxruntime.__version__} as installed has no CUDA provider")
    artifact = make_artifact()
    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CUDAExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    names = [output.name for output in session.get_outputs()]
    check(dict(zip(names, session.run(names, {"image": FRAMES[0]}), strict=True)), artifact, FRAMES[0])


def test_the_rewritten_network_is_the_published_one_in_torch(cuda_torch: None) -> None:
    """In float32, relative to the largest value of each map; the published form in float64 is the truth.

    Not in float16: wholly in halves the rewritten network overflows, and what stays in float32 is the export's choice.
    """
    import torch

    from emadeploy.export import deploy
    from emadeploy.export.source import open_source

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = open_source("emanet-rooms").network
    tasks = tuple(network.spec.task_names)
    published = deploy.Deployed(deploy.published(network), tasks).to("cuda", torch.float64)
    exact = deploy.exact(network, tasks, tiled=True)[0]
    rewritten = deploy.Deployed(exact, tasks).to("cuda")
    image = torch.randn(1, 3, *network.spec.input.size, device="cuda", dtype=torch.float64)
    with torch.inference_mode():
        for answer, truth in zip(rewritten(image.float()), published(image), strict=True):
            assert torch.isfinite(answer).all()
            assert (answer.double() - truth).abs().max() <= 1e-3 * truth.abs().max()


def test_there_is_a_gpu_to_open(gpu: Gpu) -> None:
    assert open_gpu() is gpu


def test_the_profiler_tells_the_time_of_the_layers(engine: Path) -> None:
    layers = profile(engine, np.zeros((64, 96, 3), np.uint8), runs=3)
    assert sum(layer.milliseconds for layer in layers) > 0
    assert any(layer.kind != "unknown" for layer in layers), "the inspector names layers as the profiler does"
