"""An artifact as models of a Triton model repository: what outgrows one machine goes on with the same engine files.

    REPOSITORY/NAME/config.pbtxt, manifest.json, 1/model.onnx | model.xml, model.bin | model.plan

An ONNX graph that takes frames becomes three models and the ensemble NAME of them, so that the network can have other
instances, or another device, than resizing and decoding:

    NAME-frame: frame -> image        NAME-network: image -> raw maps        NAME-maps: raw maps -> decoded maps
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emadeploy.build.folder import assembled
from emadeploy.build.pbtxt import Symbol, text_format
from emadeploy.contract.errors import ArtifactError, BuildError, SpecError
from emadeploy.contract.manifest import MANIFEST_NAME, Manifest
from emadeploy.contract.spec import TensorSpec

#: numpy's names of types -> Triton's.
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16"}
#: Engine -> Triton's backend, its device, and the file that it loads. TensorRT for RTX has no backend.
_BACKENDS = {
    "onnxruntime": ("onnxruntime", "KIND_CPU", "model.onnx"),
    "openvino": ("openvino", "KIND_CPU", "model.xml"),
    "tensorrt": ("tensorrt", "KIND_GPU", "model.plan"),
}
_VERSION = "1"


def check_engine(engine: str) -> None:
    """Raise BuildError where Triton runs no engines of this kind."""
    if engine not in _BACKENDS:
        raise BuildError(f"Triton has no backend for engine {engine!r}; it has {', '.join(_BACKENDS)}: export for one")


def write_repository(artifact: Path, repository: Path, *, instances: int = 1) -> tuple[str, ...]:
    """Write the artifact into a Triton model ``repository``, and return the names of its models, the one to ask last.

    ``instances``, 1 or more, of the network run at a time. Models of these names that this function wrote before are
    replaced, each in one step; others stay. Raises ArtifactError for an artifact that is incomplete or altered,
    BuildError where it is of an engine that Triton does not run, TensorRT's that is not compiled yet, or the disk
    refuses, SpecError for ``instances`` below 1.
    """
    if instances < 1:
        raise SpecError(f"{instances} instances of {artifact} would answer nothing: give 1 or more")
    manifest = Manifest.read(artifact)
    check_engine(manifest.engine)
    manifest.verify_files(artifact)
    name = manifest.model.name
    if manifest.engine == "onnxruntime" and manifest.frame_size is not None:
        return _write_ensemble(artifact, manifest, repository, instances)
    files = _engine_files(artifact, manifest)

    def copy(folder: Path) -> None:
        for file, source in files.items():
            shutil.copyfile(source, folder / file)

    config = {**_config(name, manifest.engine, manifest.inputs, manifest.outputs, instances), **_meaning(manifest)}
    _write_model(repository, config, manifest, copy)
    return (name,)


def _write_ensemble(artifact: Path, manifest: Manifest, repository: Path, instances: int) -> tuple[str, ...]:
    from emadeploy.build.triton_parts import cut  # onnx, which no other engine needs here

    name = manifest.model.name
    steps = []
    parts = cut(artifact / manifest.engine_file, manifest)
    for part in parts:
        count = instances if part.name == "network" else 1
        config = _config(f"{name}-{part.name}", "onnxruntime", part.inputs, part.outputs, count)
        _write_model(repository, config, manifest, part.write)
        maps = {f"{side}_map": _same(specs) for side, specs in (("input", part.inputs), ("output", part.outputs))}
        steps.append({"model_name": config["name"], "model_version": -1, **maps})
    ensemble = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": 0,
        "input": [_tensor(spec) for spec in manifest.inputs],
        "output": [_tensor(spec) for spec in manifest.outputs],
        "ensemble_scheduling": {"step": steps},
        **_meaning(manifest),
    }
    _write_model(repository, ensemble, manifest, _write_note)
    return (*(f"{name}-{part.name}" for part in parts), name)


def _write_note(folder: Path) -> None:
    """Put something into the folder of a version that has no file: what copies repositories often drops empty ones."""
    (folder / "README").write_text("An ensemble: its steps are in config.pbtxt.\n", encoding="utf-8")


def _write_model(repository: Path, config: Mapping[str, Any], manifest: Manifest, fill: Callable[[Path], None]) -> None:
    """Write a model: its configuration, what it was made from, and what ``fill`` puts into its version's folder."""
    with assembled(repository / config["name"]) as folder:
        (folder / _VERSION).mkdir()
        fill(folder / _VERSION)
        (folder / "config.pbtxt").write_text(text_format(config), encoding="utf-8")
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def _engine_files(artifact: Path, manifest: Manifest) -> dict[str, Path]:
    """Return name in the repository -> file of the artifact."""
    wanted = _BACKENDS[manifest.engine][2]
    if manifest.engine != "tensorrt":
        stem = Path(manifest.engine_file).stem
        return {Path(wanted).stem + Path(file).suffix: artifact / file for file in manifest.files if stem in file}
    from emadeploy.runtime.trt.record import EngineRecord

    try:
        record = EngineRecord.read(artifact)
    except ArtifactError as error:
        raise BuildError(
            f"{error}; then `emadeploy export {artifact} --layout triton` there. Triton must have the same TensorRT"
        ) from None
    if record.key.source != manifest.files[manifest.engine_file].sha256:
        raise ArtifactError(f"{artifact}: its engine was compiled from another graph: emadeploy build {artifact}")
    record.plan_bytes(artifact)  # checks the digest
    return {wanted: artifact / record.plan}


def _config(
    name: str, engine: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], instances: int
) -> dict[str, Any]:
    """Return the configuration of a model, whose first request finds it warm.

    The graphs hold one frame, in CTAL without an axis for more, so that there are no batches to gather: Triton's
    dynamic batcher stays off, and more frames at a time are more instances.
    """
    backend, kind, file = _BACKENDS[engine]
    black = {
        spec.name: {"data_type": Symbol(_TYPES[spec.dtype]), "dims": list(spec.shape), "zero_data": True}
        for spec in inputs
    }
    return {
        "name": name,
        "backend": backend,
        "default_model_filename": file,
        "max_batch_size": 0,
        "input": [_tensor(spec) for spec in inputs],
        "output": [_tensor(spec) for spec in outputs],
        "instance_group": {"count": instances, "kind": Symbol(kind)},
        "model_warmup": {"name": "black", "batch_size": 1, "inputs": _map(black)},
    }


def _meaning(manifest: Manifest) -> dict[str, Any]:
    """Return what the maps mean, and the precision that the engine is to have, as parameters."""
    meaning: dict[str, str] = {"emadeploy.target": manifest.target}
    for task in manifest.model.tasks:
        fields = {"kind": task.kind, "unit": task.unit, "direction": task.direction, "frame": task.frame}
        fields["classes"] = ",".join(task.class_names) if task.class_names else None
        meaning |= {f"{task.name}.{key}": value for key, value in fields.items() if value is not None}
    if manifest.engine == "openvino" and manifest.rest == "bf16":
        meaning["HINT_BF16"] = "YES"
    return {"parameters": _map({key: {"string_value": value} for key, value in meaning.items()})}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": Symbol(_TYPES[spec.dtype]), "dims": list(spec.shape)}


def _map(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _same(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return _map({spec.name: spec.name for spec in specs})
