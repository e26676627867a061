"""The record of a compiled engine: written in one step, checked before anything native is loaded."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emadeploy.contract.errors import ArtifactError, BuildError, DeviceError
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.trt.device import Device
from emadeploy.runtime.trt.library import Library
from emadeploy.runtime.trt.record import EngineKey, EngineRecord, plan_name

ORIN = Device("NVIDIA Jetson Orin Nano", "8.7", "36.4.4", "12.6", 8 << 30)


@pytest.fixture
def library(installed: Callable[..., Library]) -> Library:
    return installed("tensorrt-10.3")


@pytest.fixture
def artifact(make_artifact: Callable[..., Path]) -> Path:
    return make_artifact(target="trt-int8", precision={})


def put(folder: Path, library: Library, plan: bytes = b"native code", **key: Any) -> EngineRecord:
    """Give the artifact in ``folder`` the engine ``plan``; ``key``: what else than this machine it depends on."""
    digest = hashlib.sha256(plan).hexdigest()
    source = Manifest.read(folder).files["model.onnx"].sha256
    made = folder / ".made"
    made.write_bytes(plan)
    here = replace(EngineKey.here(library, source, ORIN), **key)
    record = EngineRecord(plan_name(digest), digest, len(plan), here, {"dla": None}, 12.5, {"total": {}})
    record.write(folder, made)
    return record


def check(record: EngineRecord, folder: Path, library: Library, device: Device = ORIN) -> None:
    record.check(folder, Manifest.read(folder), device, library)


def test_what_was_written_is_read_again_and_is_of_this_machine(artifact: Path, library: Library) -> None:
    record = put(artifact, library)
    assert EngineRecord.read(artifact) == record
    assert record.plan_bytes(artifact) == b"native code"
    check(record, artifact, library)
    assert sorted(path.name for path in artifact.iterdir()) == sorted(
        ["engine.json", record.plan, "manifest.json", "model.onnx"]
    )


def test_a_newer_engine_takes_the_place_of_the_older(artifact: Path, library: Library) -> None:
    older, newer = put(artifact, library), put(artifact, library, b"other code")
    assert EngineRecord.read(artifact) == newer
    assert not (artifact / older.plan).exists()
    assert newer.plan_bytes(artifact) == b"other code"


def test_a_write_that_fails_leaves_the_engine_that_was_there(
    artifact: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = put(artifact, library)
    replaced = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("engine.json"):
            raise OSError(28, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BuildError, match="cannot be written: No space left on device"):
        put(artifact, library, b"other code")
    assert EngineRecord.read(artifact) == older
    assert older.plan_bytes(artifact) == b"native code"
    assert not list(artifact.glob(".engine.json*"))


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ({"gpu": "NVIDIA Jetson AGX Orin"}, DeviceError, "the engine is for another GPU.*AGX Orin.*here is.*Orin Nano"),
        (
            {"compute_capabilities": ("8.6",)},
            DeviceError,
            r"for another GPU.*capability 8\.6.*here is.*capability 8\.7",
        ),
        (
            {"driver": "36.4.3"},
            DeviceError,
            r"another version of the driver.*driver 36\.4\.3; here is.*driver 36\.4\.4",
        ),
        ({"version": "10.13.3"}, DeviceError, r"another version of TensorRT.*10\.13\.3.*here is TensorRT 10\.3\.0"),
        ({"version": "8.6.2"}, DeviceError, "the engine needs TensorRT 8, another major version"),
        ({"source": "0" * 64}, ArtifactError, r"compiled from another graph than model\.onnx"),
        ({"engine": "tensorrt_rtx"}, ArtifactError, "compiled from another graph"),
    ],
)
def test_an_engine_of_another_place_says_what_it_is_for_and_what_is_here(
    artifact: Path, library: Library, key: dict[str, Any], error: type[Exception], message: str
) -> None:
    record = put(artifact, library, **key)
    with pytest.raises(error, match=rf"{message}.*emadeploy build {artifact}$"):
        check(record, artifact, library)


def test_an_engine_that_was_built_ahead_runs_on_every_gpu_of_its_kind(
    make_artifact: Callable[..., Path], installed: Callable[..., Library]
) -> None:
    artifact = make_artifact(target="trt-rtx-int8", precision={})
    library = installed("tensorrt_rtx-1.7")
    record = put(artifact, library, compute_capabilities=("8.9", "12.0"), gpu="", driver="")
    for name, capability in (("NVIDIA RTX 4090", "8.9"), ("NVIDIA RTX 5090", "12.0")):
        check(record, artifact, library, Device(name, capability, "580.1", "13.0", 1 << 34))
    with pytest.raises(DeviceError, match=r"another GPU.*on any GPU of compute capability 8\.9 or 12\.0; here is"):
        check(record, artifact, library, Device("NVIDIA RTX 3090", "8.6", "580.1", "13.0", 1 << 34))


def test_a_changed_byte_is_found_before_the_plan_is_used(artifact: Path, library: Library) -> None:
    record = put(artifact, library)
    (artifact / record.plan).write_bytes(b"native c0de")
    with pytest.raises(ArtifactError, match=r"differs from the digest.*was not loaded; .*emadeploy build .* --force"):
        record.plan_bytes(artifact)
    (artifact / record.plan).unlink()
    with pytest.raises(ArtifactError, match=r"is missing; engine\.json names it"):
        record.plan_bytes(artifact)


def test_an_artifact_that_is_not_compiled_says_what_compiles_it(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"is not compiled yet.*emadeploy build {artifact}$"):
        EngineRecord.read(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "another version of emadeploy"),
        ({"plan": "../engine.plan"}, "is not named by its digest"),
        ({"sha256": "../../../etc"}, "is not named by its digest"),
        ({"bytes": "many"}, "'many' is not an int"),
        ({"key": []}, "key is not a mapping"),
        ({"key": {"engine": "tensorrt"}}, "not a list"),
        ({"surplus": 1}, "unknown field 'surplus'"),
    ],
)
def test_a_record_that_is_none_is_refused(
    artifact: Path, library: Library, change: dict[str, Any], message: str
) -> None:
    put(artifact, library)
    path = artifact / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=rf"{message}.*emadeploy build"):
        EngineRecord.read(artifact)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="is not the record of an engine"):
        EngineRecord.read(artifact)
