"""load() and Runtime on ONNX Runtime, with a graph of one convolution: what works, and what is refused."""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import onnxruntime as ort

import emadeploy
from emadeploy import Runtime, load
from emadeploy.contract.errors import ArtifactError, BackendMissing, DeviceError, FrameError, SpecError
from emadeploy.contract.manifest import MANIFEST_NAME, FileRecord
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec
from emadeploy.runtime.backends import opener

Make = Callable[..., Path]


def frame_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (48, 160), (120, 40), (1, 1), (333, 217)])
def test_a_frame_of_any_size_gets_every_map_at_its_size(make_artifact: Make, size: tuple[int, int]) -> None:
    with load(make_artifact()) as perception:
        result = perception(frame_of(*size))
    assert list(result.maps) == ["semseg", "depth", "normals"]
    assert result.semseg is not None
    assert (result.semseg.shape, result.semseg.dtype) == (size, np.uint8)
    assert result.semseg.max() < 13
    assert result.depth is not None
    assert (result.depth.shape, result.depth.dtype) == (size, np.float32)
    assert result.depth.min() >= 0
    assert result.normals is not None
    assert (result.normals.shape, result.normals.dtype) == ((*size, 3), np.float32)
    np.testing.assert_allclose(np.linalg.norm(result.normals, axis=2), 1, atol=1e-5)
    assert list(result.timings) == ["preprocess", "inference", "decode"]
    assert all(ms >= 0 for ms in result.timings.values())


def test_the_maps_are_those_of_the_graph(make_artifact: Make) -> None:
    artifact = make_artifact()
    frame = frame_of(50, 70)
    perception = load(artifact)
    image = preprocess(frame, perception.spec.input)
    answers = ort.InferenceSession(artifact / "model.onnx").run(None, {"image": image})
    raw, result = perception.raw(frame), perception(frame)
    for task, answer in zip(perception.spec.tasks, answers, strict=True):
        np.testing.assert_allclose(raw[task.name], answer, atol=1e-5)
        np.testing.assert_array_equal(result.maps[task.name], decode(raw[task.name], task, (50, 70)))


@pytest.mark.parametrize("frame_size", [None, (50, 70)])
def test_tensors_of_the_graph_get_its_answers(make_artifact: Make, frame_size: Any) -> None:
    frame = frame_of(50, 70)
    with load(make_artifact(frame_size=frame_size)) as perception:
        name = perception.manifest.inputs[0].name
        given = frame if frame_size else preprocess(frame, perception.spec.input)
        found, expected = perception.infer({name: given}), perception.raw(frame)
        assert list(found) == list(expected)
        for task, answer in expected.items():
            np.testing.assert_array_equal(found[task], answer)
        found["depth"][:] = -1  # the caller's
        np.testing.assert_array_equal(perception.infer({name: given})["depth"], expected["depth"])
        strided = np.repeat(given, 2, axis=-2)[..., ::2, :]
        np.testing.assert_array_equal(perception.infer({name: strided})["depth"], expected["depth"])


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, r"tensors are none; the graph of 'tiny' takes 'image' float32 \(1, 3, 64, 96\)"),
        ({"frame": np.zeros((64, 96, 3), np.uint8)}, r"tensors are 'frame' uint8 \(64, 96, 3\); the graph of"),
        ({"image": np.zeros((1, 3, 64, 96))}, "tensors are 'image' float64"),
        ({"image": [0.0]}, "tensors are 'image' float64"),
        ({"image": np.zeros((1, 3, 64, 95), np.float32)}, "64, 95"),
        ({"image": np.full((1, 3, 64, 96), np.nan, np.float32)}, "tensor 'image' holds values that are not finite"),
        ({"image": np.tile(np.float32([np.inf, -np.inf]), (1, 3, 64, 48))}, "not finite"),
    ],
)
def test_other_tensors_are_refused(make_artifact: Make, tensors: Any, says: str) -> None:
    with load(make_artifact()) as perception, pytest.raises(FrameError, match=says):
        perception.infer(tensors)


def test_bgr_and_views_of_frames(make_artifact: Make) -> None:
    for frame_size in (None, (50, 70)):
        perception = load(make_artifact(str(frame_size), frame_size=frame_size))
        frame = frame_of(50, 70)
        wanted = perception(frame).depth
        np.testing.assert_array_equal(perception(frame[:, :, ::-1], order="bgr").depth, wanted)
        np.testing.assert_array_equal(perception(frame[::-1][::-1]).depth, wanted)
        np.testing.assert_array_equal(perception(np.asfortranarray(frame)).depth, wanted)
        assert not np.array_equal(perception(frame, order="bgr").depth, wanted)


def test_the_stamp_is_kept_and_defaults_to_now(make_artifact: Make) -> None:
    perception = load(make_artifact())
    assert perception(frame_of(8, 8), stamp=12.5).stamp == 12.5
    assert perception(frame_of(8, 8), stamp=0.0).stamp == 0.0
    before = time.time()
    assert before <= perception(frame_of(8, 8)).stamp <= time.time()


def test_results_are_not_overwritten_by_later_frames(make_artifact: Make) -> None:
    for frame_size in (None, (50, 70)):
        perception = load(make_artifact(str(frame_size), frame_size=frame_size))
        first = perception(frame_of(50, 70, 1))
        kept = {name: array.copy() for name, array in first.maps.items()}
        perception(frame_of(50, 70, 2))
        for name, array in first.maps.items():
            np.testing.assert_array_equal(array, kept[name])


def test_a_graph_that_takes_frames_answers_decoded_maps(make_artifact: Make) -> None:
    perception = load(make_artifact(frame_size=(50, 70)))
    result = perception(frame_of(50, 70))
    assert result.semseg is not None
    assert (result.semseg.shape, result.semseg.dtype) == ((50, 70), np.uint8)
    assert result.depth is not None
    assert result.depth.shape == (50, 70)
    assert result.normals is not None
    assert result.normals.shape == (50, 70, 3)


def test_a_graph_that_takes_frames_refuses_other_sizes_naming_its_own(make_artifact: Make) -> None:
    perception = load(make_artifact(frame_size=(50, 70)))
    with pytest.raises(FrameError, match=r"frame is 70 x 50 .* exported for frames of 50 x 70.*--frame-size 70x50"):
        perception(frame_of(70, 50))


@pytest.mark.parametrize("frame_size", [None, (8, 8)])
@pytest.mark.parametrize(
    ("frame", "order"),
    [
        (np.zeros((8, 8, 3), np.float32), "rgb"),
        (np.zeros((8, 8), np.uint8), "rgb"),
        (np.zeros((8, 8, 4), np.uint8), "rgb"),
        (np.zeros((3, 8, 8), np.uint8), "rgb"),
        (np.zeros((0, 8, 3), np.uint8), "rgb"),
        (None, "rgb"),
        (np.zeros((8, 8, 3), np.uint8), "rgba"),
    ],
)
def test_other_frames_and_orders_are_refused(make_artifact: Make, frame_size: Any, frame: Any, order: str) -> None:
    perception = load(make_artifact(frame_size=frame_size))
    with pytest.raises(FrameError):
        perception(frame, order=order)


def test_many_threads_get_the_answers_of_one(make_artifact: Make) -> None:
    perception = load(make_artifact(), threads=1)
    frames = [frame_of(40 + i, 60, i) for i in range(8)]
    wanted = [perception(frame) for frame in frames]
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(24):
            index = (first + turn) % len(frames)
            result = perception(frames[index])
            if not all(np.array_equal(result.maps[name], array) for name, array in wanted[index].maps.items()):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_describe_says_what_runs_where(make_artifact: Make) -> None:
    perception = load(make_artifact(), threads=1, warm_up=False)
    assert perception.describe() == {
        "target": "onnxruntime-fp32",
        "engine": "onnxruntime",
        "version": ort.__version__,
        "device": "cpu",
        "provider": "CPUExecutionProvider",
        "threads": 1,
    }


def test_a_closed_runtime_says_so(make_artifact: Make) -> None:
    perception = load(make_artifact())
    perception.close()
    perception.close()
    for use in (lambda: perception(frame_of(8, 8)), perception.describe):
        with pytest.raises(ArtifactError, match="the runtime of 'tiny' is closed"):
            use()


def test_an_untrained_artifact_loads(make_artifact: Make) -> None:
    assert load(make_artifact(source={"untrained": True})).manifest.untrained


# What is refused, before the engine sees a byte of it.


def _flip_a_bit(artifact: Path) -> None:
    data = bytearray((artifact / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / "model.onnx").write_bytes(data)


def _truncate(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes((artifact / "model.onnx").read_bytes()[:100])


def _remove(artifact: Path) -> None:
    (artifact / "model.onnx").unlink()


def _foreign_manifest(artifact: Path) -> None:
    (artifact / MANIFEST_NAME).write_text('{"name": "a web app", "icons": []}')


def _newer_schema(artifact: Path) -> None:
    data = json.loads((artifact / MANIFEST_NAME).read_text())
    (artifact / MANIFEST_NAME).write_text(json.dumps({**data, "schema": 2}))


def _no_manifest(artifact: Path) -> None:
    (artifact / MANIFEST_NAME).unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_flip_a_bit, r"model.onnx differs from the digest"),
        (_truncate, r"model.onnx has 100 bytes, the manifest says \d+: truncated"),
        (_remove, r"model.onnx is missing"),
        (_foreign_manifest, r"manifest.json: not a manifest of emadeploy"),
        (_newer_schema, r"manifest has schema 2, this version of emadeploy reads 1"),
        (_no_manifest, r"has no manifest.json"),
    ],
)
def test_a_harmed_artifact_is_refused(
    make_artifact: Make, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None], says: str
) -> None:
    artifact = make_artifact()
    load(artifact, warm_up=False).close()
    harm(artifact)

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("the engine was given an artifact that is not sound")

    monkeypatch.setattr(ort, "InferenceSession", never)
    with pytest.raises(ArtifactError, match=says):
        load(str(artifact))


def test_a_path_that_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        load(tmp_path / "nowhere")


def test_a_file_that_is_no_onnx_graph_is_an_artifact_error(make_artifact: Make) -> None:
    artifact = make_artifact()
    (artifact / "model.onnx").write_bytes(b"not a graph")
    data = json.loads((artifact / MANIFEST_NAME).read_text())
    record = FileRecord.of(artifact / "model.onnx")
    data["files"]["model.onnx"] = {"sha256": record.sha256, "bytes": record.bytes}
    (artifact / MANIFEST_NAME).write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"model.onnx: onnxruntime .* cannot load it"):
        load(artifact)


IMAGE = TensorSpec("image", (1, 3, 64, 96), "float32", "BCHW")
MAPS = tuple(
    TensorSpec(n, (1, c, 32, 48), "float32", "BCHW") for n, c in (("semseg", 13), ("depth", 1), ("normals", 3))
)


def _with(index: int, *values: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(*values) if i == index else tensor for i, tensor in enumerate(MAPS))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        # The manifest is not one of its model.
        ({"inputs": (IMAGE, IMAGE)}, "manifest: inputs are image .*, image .*; its model takes image"),
        ({"inputs": (TensorSpec("frame", (64, 96, 3), "uint8", "HWC"),)}, "its model takes image float32"),
        ({"outputs": MAPS[:2]}, "manifest: outputs are semseg, depth; its tasks are semseg, depth, normals"),
        ({"outputs": _with(1, "depth", (1, 2, 32, 48), "float32", "BCHW")}, "output depth .* is no map of its task"),
        ({"outputs": _with(1, "depth", (1, 1, 32, 48), "float16", "BCHW")}, "output depth .* is no map of its task"),
        # The graph is not the one of the manifest.
        ({"outputs": _with(1, "depth", (1, 1, 64, 96), "float32", "BCHW")}, "model.onnx: the graph's outputs are .*"),
    ],
)
def test_a_manifest_that_describes_another_graph_is_refused(make_artifact: Make, fields: Any, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        load(make_artifact(**fields))


def test_a_manifest_of_another_model_is_refused(make_artifact: Make) -> None:
    model = ModelSpec("tiny", "emanet", (TaskSpec("edge"), TaskSpec("depth"), TaskSpec("normals")), InputSpec(64, 96))
    with pytest.raises(ArtifactError, match="its tasks are edge, depth, normals"):
        load(make_artifact(model=model))


@pytest.mark.parametrize("frame_size", [None, (50, 70)])
def test_values_that_are_not_finite_never_leave_the_runtime(make_artifact: Make, frame_size: Any) -> None:
    artifact = make_artifact(frame_size=frame_size, poison=float("nan"))
    with pytest.raises(ArtifactError, match="values that are not finite"):
        load(artifact)
    perception = load(artifact, warm_up=False)
    with pytest.raises(ArtifactError, match="values that are not finite"):
        perception(frame_of(50, 70))
    given = perception.manifest.inputs[0]
    with pytest.raises(ArtifactError, match=r"output '\w+' holds values that are not finite"):
        perception.infer({given.name: np.ones(given.shape, given.dtype)})


# What is missing here.


def test_a_missing_onnxruntime_says_how_to_install_it(make_artifact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make_artifact()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "emadeploy.runtime.backends.onnxruntime", raising=False)
    with pytest.raises(BackendMissing) as caught:
        load(artifact)
    assert str(caught.value) == (
        "engine 'onnxruntime' needs onnxruntime, which is not installed: pip install 'emadeploy[onnxruntime]'"
    )


def test_an_engine_without_a_backend_says_which_there_are() -> None:
    with pytest.raises(BackendMissing, match=r"engine 'tflite' has no backend .*; it runs: onnxruntime"):
        opener("tflite")


def test_an_absent_device_is_an_error_and_never_another_device(make_artifact: Make) -> None:
    with pytest.raises(DeviceError, match="device 'gpu': engine 'onnxruntime' runs on cpu in this version"):
        load(make_artifact(), device="gpu")


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_that_makes_no_sense_is_refused(make_artifact: Make, threads: int) -> None:
    with pytest.raises(SpecError, match=f"threads {threads} is not positive"):
        load(make_artifact(), threads=threads)


def test_a_failing_engine_is_a_device_error(make_artifact: Make) -> None:
    from emadeploy.contract.manifest import Manifest
    from emadeploy.runtime.backends.onnxruntime import open_session

    artifact = make_artifact()
    session = open_session(artifact, Manifest.read(artifact), threads=1, device=None)
    with pytest.raises(DeviceError, match="failed while running"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_the_public_face() -> None:
    assert emadeploy.__all__ == ["Runtime", "__version__", "load"]
    assert emadeploy.load is load
    assert emadeploy.Runtime is Runtime
