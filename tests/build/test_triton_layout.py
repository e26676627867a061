"""Triton model repositories: configurations that Triton's own schema takes, the engine's files, an ensemble to run."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emadeploy.build.pbtxt import Symbol, text_format
from emadeploy.build.triton_layout import write_repository
from emadeploy.contract.errors import ArtifactError, BuildError, SpecError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec
from emadeploy.runtime.trt.record import EngineKey, EngineRecord, plan_name

onnx = pytest.importorskip("onnx")
Make = Callable[..., Path]


def config(model: Path) -> Any:
    """Return the configuration of a model, as Triton's schema reads it: what it does not know is an error."""
    grpc = pytest.importorskip("tritonclient.grpc")
    text = pytest.importorskip("google.protobuf.text_format")
    return text.Parse((model / "config.pbtxt").read_text("utf-8"), grpc.model_config_pb2.ModelConfig())


def tensors(specs: Any) -> list[tuple[str, int, list[int]]]:
    return [(spec.name, spec.data_type, list(spec.dims)) for spec in specs]


FP32, UINT8 = 11, 2


def test_an_artifact_is_one_model(make_artifact: Make, tmp_path: Path) -> None:
    artifact, repository = make_artifact(), tmp_path / "models"
    assert write_repository(artifact, repository, instances=3) == ("tiny",)
    found = config(repository / "tiny")
    assert (found.name, found.backend, found.default_model_filename) == ("tiny", "onnxruntime", "model.onnx")
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (0, False)
    assert tensors(found.input) == [("image", FP32, [1, 3, 64, 96])]
    assert tensors(found.output)[1] == ("depth", FP32, [1, 1, 32, 48])
    (group,) = found.instance_group
    assert (group.count, group.kind) == (3, group.KIND_CPU)
    (warm,) = found.model_warmup
    assert (warm.batch_size, warm.inputs["image"].zero_data, list(warm.inputs["image"].dims)) == (
        1,
        True,
        [1, 3, 64, 96],
    )
    assert found.parameters["depth.unit"].string_value == "metre"
    assert found.parameters["semseg.classes"].string_value.startswith("bed,books,")
    assert (repository / "tiny/1/model.onnx").read_bytes() == (artifact / "model.onnx").read_bytes()
    assert Manifest.read(repository / "tiny") == Manifest.read(artifact)
    assert sorted(path.name for path in (repository / "tiny").rglob("*")) == [
        "1",
        "config.pbtxt",
        "manifest.json",
        "model.onnx",
    ]


@pytest.mark.parametrize("rest", ["fp32", "bf16"])
def test_openvino_takes_both_its_files(make_artifact: Make, tmp_path: Path, rest: str) -> None:
    artifact = make_artifact()
    manifest = Manifest.read(artifact)
    files = {}
    for name in ("model.xml", "model.bin"):
        (artifact / name).write_text(name)
        files[name] = FileRecord.of(artifact / name)
    replace(manifest, target="openvino-int8", engine_file="model.xml", files=files, rest=rest).write(artifact)
    write_repository(artifact, tmp_path / "models")
    found = config(tmp_path / "models/tiny")
    assert (found.backend, found.default_model_filename) == ("openvino", "model.xml")
    assert found.parameters["HINT_BF16"].string_value == {"fp32": "", "bf16": "YES"}[rest]
    for name in files:
        assert (tmp_path / "models/tiny/1" / name).read_text() == name


def compiled(artifact: Path, source: str | None = None) -> None:
    """Put an engine into the artifact."""
    (artifact / "made").write_bytes(b"plan")
    digest = hashlib.sha256(b"plan").hexdigest()
    key = EngineKey("tensorrt", "10.3.0", source or Manifest.read(artifact).files["model.onnx"].sha256, ("8.7",))
    EngineRecord(plan_name(digest), digest, 4, key).write(artifact, artifact / "made")


def test_tensorrt_takes_the_engine_of_the_device(make_artifact: Make, tmp_path: Path) -> None:
    artifact, repository = make_artifact(target="trt-fp16", precision={}), tmp_path / "models"
    with pytest.raises(BuildError, match=r"is not compiled yet.*emadeploy build.*then `emadeploy export"):
        write_repository(artifact, repository)
    assert not (repository / "tiny").exists()
    compiled(artifact)
    assert write_repository(artifact, repository) == ("tiny",)
    found = config(repository / "tiny")
    assert (found.backend, found.default_model_filename) == ("tensorrt", "model.plan")
    assert found.instance_group[0].kind == found.instance_group[0].KIND_GPU
    assert (repository / "tiny/1/model.plan").read_bytes() == b"plan"
    next(artifact.glob("*.plan")).write_bytes(b"harm")
    with pytest.raises(ArtifactError, match="damaged or altered"):
        write_repository(artifact, repository)
    compiled(artifact, "0" * 64)
    with pytest.raises(ArtifactError, match="compiled from another graph"):
        write_repository(artifact, repository)


def test_what_is_no_artifact_for_triton_is_refused(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="Triton has no backend for engine 'tensorrt_rtx'"):
        write_repository(make_artifact(target="trt-rtx-fp16", precision={}), tmp_path / "models")
    artifact = make_artifact("harmed")
    (artifact / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="has 0 bytes"):
        write_repository(artifact, tmp_path / "models")
    with pytest.raises(ArtifactError, match="does not exist"):
        write_repository(tmp_path / "nowhere", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_models_are_replaced_and_others_stay(make_artifact: Make, tmp_path: Path) -> None:
    artifact, repository = make_artifact(), tmp_path / "models"
    (repository / "others").mkdir(parents=True)
    write_repository(artifact, repository)
    write_repository(artifact, repository, instances=2)
    assert config(repository / "tiny").instance_group[0].count == 2
    assert sorted(path.name for path in repository.iterdir()) == ["others", "tiny"]
    (repository / "tiny/manifest.json").unlink()  # so that it is somebody's own
    with pytest.raises(BuildError, match="exists and is not an artifact"):
        write_repository(artifact, repository)


FRAME = (6, 8)


@pytest.fixture
def frame_artifact(tmp_path: Path) -> Path:
    """Write an artifact whose graph takes frames, with the names that an export gives its nodes."""
    node = onnx.helper.make_node
    rng = np.random.default_rng(5)
    constants = {
        "weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "sizes": np.array([3, 1], np.int64),
        "zero": np.array([0], np.int64),
        "both": np.array([0, 1], np.int64),
        "scale": np.float32([0.01]),
    }
    nodes = [
        node("Transpose", ["frame"], ["a"], "frame/Transpose", perm=[2, 0, 1]),
        node("Unsqueeze", ["a", "zero"], ["b"], "frame/Unsqueeze"),
        node("Cast", ["b"], ["c"], "frame/Cast", to=onnx.TensorProto.FLOAT),
        node("Mul", ["c", "scale"], ["frame/Mul_output"], "frame/Mul"),
        node("Conv", ["frame/Mul_output", "weight"], ["d"], "backbone.conv/Conv", pads=[1] * 4),
        node("Split", ["d", "sizes"], ["heads.semseg/out", "heads.depth/out"], "heads/Split", axis=1),
        node("ArgMax", ["heads.semseg/out"], ["e"], "decode.semseg/ArgMax", axis=1, keepdims=0),
        node("Squeeze", ["e", "zero"], ["f"], "decode.semseg/Squeeze"),
        node("Cast", ["f"], ["semseg"], "decode.semseg/Cast", to=onnx.TensorProto.UINT8),
        node("Relu", ["heads.depth/out"], ["g"], "decode.depth/Relu"),
        node("Squeeze", ["g", "both"], ["depth"], "decode.depth/Squeeze"),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [value("frame", onnx.TensorProto.UINT8, (*FRAME, 3))],
        [value("semseg", onnx.TensorProto.UINT8, FRAME), value("depth", onnx.TensorProto.FLOAT, FRAME)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    folder = tmp_path / "framed"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    Manifest(
        model=ModelSpec("tiny", "hps", (TaskSpec("semseg", 3), TaskSpec("depth")), InputSpec(32, 32)),
        target="onnxruntime-fp32",
        precision={"backbone": "fp32"},
        engine_file="model.onnx",
        files={"model.onnx": FileRecord.of(folder / "model.onnx")},
        inputs=(TensorSpec("frame", (*FRAME, 3), "uint8", "HWC"),),
        outputs=(TensorSpec("semseg", FRAME, "uint8", "HW"), TensorSpec("depth", FRAME, "float32", "HW")),
        frame_size=FRAME,
    ).write(folder)
    return folder


@pytest.mark.parametrize("instances", [0, -1])
def test_no_instances_are_refused(make_artifact: Make, tmp_path: Path, instances: int) -> None:
    artifact = make_artifact()
    with pytest.raises(SpecError, match=f"{instances} instances of .* would answer nothing"):
        write_repository(artifact, tmp_path / "models", instances=instances)
    assert not (tmp_path / "models").exists()


def test_batches_are_gathered_where_that_was_asked_for(make_artifact: Make, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    artifact, repository = make_artifact(), tmp_path / "models"
    write_repository(artifact, repository, max_batch=4)
    found = config(repository / "tiny")
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (4, True)
    assert tensors(found.input) == [("image", FP32, [3, 64, 96])]
    assert tensors(found.output)[1] == ("depth", FP32, [1, 32, 48])
    (warm,) = found.model_warmup
    assert (warm.batch_size, list(warm.inputs["image"].dims)) == (1, [3, 64, 96])
    alone = ort.InferenceSession(artifact / "model.onnx")
    batch = ort.InferenceSession(repository / "tiny/1/model.onnx")
    images = np.random.default_rng(0).normal(0, 1, (3, 3, 64, 96)).astype(np.float32)
    for count in (1, 3):
        for index, (answer, spec) in enumerate(
            zip(batch.run(None, {"image": images[:count]}), batch.get_outputs(), strict=True)
        ):
            wanted = [alone.run([spec.name], {"image": image[None]})[0] for image in images[:count]]
            np.testing.assert_array_equal(answer, np.concatenate(wanted), err_msg=f"{index} {spec.name}")


def test_batches_of_engines_that_hold_one_frame_are_refused(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    replace(Manifest.read(artifact), target="openvino-int8").write(artifact)
    with pytest.raises(BuildError, match=r"engines of 'openvino' are compiled for one frame.* more instances"):
        write_repository(artifact, tmp_path / "models", max_batch=2)
    with pytest.raises(SpecError, match="batches of 0 frames would answer nothing"):
        write_repository(artifact, tmp_path / "models", max_batch=0)
    assert not (tmp_path / "models").exists()


def run_ensemble(repository: Path, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run an ensemble as Triton does: each step takes tensors of the pool by its maps, and adds its own."""
    ort = pytest.importorskip("onnxruntime")
    pool = dict(inputs)
    for step in config(repository / name).ensemble_scheduling.step:
        session = ort.InferenceSession(repository / step.model_name / "1/model.onnx")
        given = {theirs: pool[ours] for theirs, ours in step.input_map.items()}
        answers = dict(zip((output.name for output in session.get_outputs()), session.run(None, given), strict=True))
        pool |= {ours: answers[theirs] for theirs, ours in step.output_map.items()}
    return pool


def test_a_graph_that_takes_frames_is_an_ensemble_that_answers_the_same(frame_artifact: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    repository = tmp_path / "models"
    names = write_repository(frame_artifact, repository, instances=2)
    assert names == ("tiny-frame", "tiny-network", "tiny-maps", "tiny")
    found = config(repository / "tiny")
    assert (found.platform, found.backend, list(found.instance_group)) == ("ensemble", "", [])
    assert tensors(found.input) == [("frame", UINT8, [6, 8, 3])]
    assert tensors(found.output) == [("semseg", UINT8, [6, 8]), ("depth", FP32, [6, 8])]
    assert [step.model_name for step in found.ensemble_scheduling.step] == list(names[:3])
    assert [path.name for path in (repository / "tiny/1").iterdir()] == ["README"]
    assert found.parameters["depth.unit"].string_value == "metre"
    network = config(repository / "tiny-network")
    assert tensors(network.input) == [("frame/Mul_output", FP32, [1, 3, 6, 8])]
    assert tensors(network.output) == [
        ("heads.semseg/out", FP32, [1, 3, 6, 8]),
        ("heads.depth/out", FP32, [1, 1, 6, 8]),
    ]
    counts = [config(repository / name).instance_group[0].count for name in names[:3]]
    assert counts == [1, 2, 1]

    frame = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)
    whole = ort.InferenceSession(frame_artifact / "model.onnx").run(["semseg", "depth"], {"frame": frame})
    pool = run_ensemble(repository, "tiny", {"frame": frame})
    np.testing.assert_array_equal(pool["semseg"], whole[0])
    np.testing.assert_array_equal(pool["depth"], whole[1])


def test_an_ensemble_takes_batches_too(frame_artifact: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    repository = tmp_path / "models"
    names = write_repository(frame_artifact, repository, max_batch=8)
    models = [config(repository / name) for name in names]
    assert [model.max_batch_size for model in models] == [8, 8, 8, 8]
    assert [model.HasField("dynamic_batching") for model in models] == [True, True, True, False]
    assert tensors(models[3].input) == [("frame", UINT8, [6, 8, 3])]
    assert tensors(models[1].input) == [("frame/Mul_output", FP32, [3, 6, 8])]
    frames = np.random.default_rng(0).integers(0, 256, (3, *FRAME, 3), np.uint8)
    whole = ort.InferenceSession(frame_artifact / "model.onnx")
    pool = run_ensemble(repository, "tiny", {"frame": frames})
    for index, frame in enumerate(frames):
        semseg, depth = whole.run(["semseg", "depth"], {"frame": frame})
        np.testing.assert_array_equal(pool["semseg"][index], semseg)
        np.testing.assert_array_equal(pool["depth"][index], depth)


def test_a_graph_whose_nodes_have_other_names_is_not_cut(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be cut into frame, network and maps: 0 tensors enter the network"):
        write_repository(make_artifact(frame_size=(64, 96)), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_text_format_escapes_what_it_must() -> None:
    message = {
        "a": 'qu"ote\n\u00e9\\',
        "b": [1, 2],
        "c": Symbol("KIND"),
        "d": {"e": True},
        "f": [],
        "g": [{"h": False}],
    }
    assert text_format(message) == (
        'a: "qu\\"ote\\n\u00e9\\\\"\nb: 1\nb: 2\nc: KIND\nd {\n  e: true\n}\ng {\n  h: false\n}\n'
    )
