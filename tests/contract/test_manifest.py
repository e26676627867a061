"""Manifests: a round trip, tampering, foreign files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.manifest import MANIFEST_NAME, TARGETS, FileRecord, Manifest, file_digest, parse_target
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec


def manifest(**fields: Any) -> Manifest:
    values: dict[str, Any] = {
        "model": ModelSpec("m", "emanet", (TaskSpec("depth"),), InputSpec(32, 64)),
        "target": "onnxruntime-fp32",
        "precision": {"backbone": "fp32"},
        "engine_file": "model.onnx",
        "files": {"model.onnx": FileRecord("00", 4)},
        "inputs": (TensorSpec("image", (1, 3, 32, 64), "float32", "BCHW"),),
        "outputs": (TensorSpec("depth", (1, 1, 32, 64), "float32", "BCHW"),),
    }
    return Manifest(**{**values, **fields})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    target=st.sampled_from(list(TARGETS)),
    frame_size=st.none() | st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    parity=st.dictionaries(st.text(max_size=5), PLAIN, max_size=3),
    accuracy=st.none() | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3),
)
def test_a_manifest_survives_json(**fields: Any) -> None:
    written = manifest(**fields)
    assert Manifest.from_json(written.to_json()) == written


@given(field=st.sampled_from([*json.loads(manifest().to_json())]), junk=PLAIN)
def test_a_field_replaced_by_junk_is_an_artifact_error_or_a_manifest(field: str, junk: Any) -> None:
    text = json.dumps({**json.loads(manifest().to_json()), field: junk})
    try:
        read = Manifest.from_json(text)
    except ArtifactError:
        return
    assert isinstance(read.untrained, bool)
    assert read.engine == "onnxruntime"


@given(st.text())
def test_any_other_text_is_an_artifact_error(text: str) -> None:
    with pytest.raises(ArtifactError, match="not a manifest of emadeploy"):
        Manifest.from_json(text)


def test_a_manifest_of_another_schema_says_so() -> None:
    data = {**json.loads(manifest().to_json()), "schema": 99}
    with pytest.raises(ArtifactError, match="schema 99, this version of emadeploy reads 1"):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"name": "another program"}', "[" * 100_000])
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="not a manifest of emadeploy"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target": "coreml"}, "target 'coreml' is unknown; known: onnxruntime-fp32"),
        ({"engine_file": "other.onnx"}, "engine file 'other.onnx' is not among its files"),
        ({"frame_size": (480,)}, r"frame_size \(480,\) is not \(height, width\)"),
        ({"frame_size": (480, 0)}, r"frame_size \(480, 0\) is not"),
        ({"source": []}, "source is not a mapping but list"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=f"manifest: {says}"):
        manifest(**fields)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".", "", "..\\x", "C:x", "manifest.json"]
)
def test_a_file_outside_the_artifact_is_refused(name: str) -> None:
    files = {"model.onnx": FileRecord("00", 4), name: FileRecord("00", 4)}
    with pytest.raises(SpecError, match="is not the name of a file inside the artifact"):
        manifest(files=files)


def test_targets_and_aliases() -> None:
    assert parse_target("ort-int8") == "onnxruntime-int8"
    assert parse_target("trt-fp16") == "trt-fp16"
    assert manifest(target="trt-rtx-int8").engine == "tensorrt_rtx"
    with pytest.raises(SpecError, match=r"target 'trt' is unknown; known: onnxruntime-fp32, .*; aliases: ort-fp32"):
        parse_target("trt")


def test_writing_leaves_one_file_that_reads_back(tmp_path: Path) -> None:
    written = manifest(source={"untrained": True})
    assert written.write(tmp_path) == tmp_path / MANIFEST_NAME
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]
    assert Manifest.read(tmp_path) == written
    assert Manifest.read(tmp_path).untrained


def test_reading_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere does not exist; an artifact is a folder made by `emadeploy exp"):
        Manifest.read(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"has no manifest.json"):
        Manifest.read(tmp_path)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"onnx")
    with pytest.raises(ArtifactError, match=r"model.onnx is not a folder"):
        Manifest.read(file)
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=r"manifest.json cannot be read"):
        Manifest.read(tmp_path)


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (_remove, "is missing; the manifest lists it"),
        (_truncate, "has 99 bytes, the manifest says 100"),
        (_flip_a_bit, "differs from the digest in the manifest"),
        (_replace_by_folder, "is missing"),
    ],
)
def test_tampering_is_found_and_named(tmp_path: Path, tamper: Callable[[Path], None], says: str) -> None:
    names = ("model.onnx", "weights.bin")
    for name in names:
        (tmp_path / name).write_bytes(bytes(range(100)))
    good = replace(manifest(), files={name: FileRecord.of(tmp_path / name) for name in names})
    good.verify_files(tmp_path)
    tamper(tmp_path / "weights.bin")
    with pytest.raises(ArtifactError, match=f"weights.bin {says}"):
        good.verify_files(tmp_path)
    assert good.file_problem(tmp_path, "model.onnx") is None


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_range_of_health_is_kept_and_looked_at() -> None:
    part = {"low": 0.4, "median": 0.5, "high": 0.6}
    kept = manifest(health={"frames": 32, "intrinsics": False, "parts": {"score": part}})
    assert Manifest.from_json(kept.to_json()) == kept
    data = json.loads(kept.to_json())
    del data["health"]
    assert Manifest.from_json(json.dumps(data)).health is None
    with pytest.raises(SpecError, match="manifest: health: score: low 'x' is not a number"):
        manifest(health={"frames": 32, "parts": {"score": {**part, "low": "x"}}})
