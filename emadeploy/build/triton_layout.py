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
from emadeploy.contract.spec import TensorSpec, frame_shape

#: numpy's names of types -> Triton's.
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16"}
#: Engine -> Triton's backend, its device, and the file that it loads. TensorRT for RTX has no backend.
_BACKENDS = {
    "onnxruntime": ("onnxruntime", "KIND_CPU", "model.onnx"),
    "openvino": ("openvino", "KIND_CPU", "model.xml"),
    "tensorrt": ("tensorrt", "KIND_GPU", "model.plan"),
}
#: Engines whose graphs can be made to take batches.
_BATCHED = ("onnxruntime",)
_VERSION = "1"


def check_engine(engine: str) -> None:
    """Raise BuildError where Triton runs no engines of this kind."""
    if engine not in _BACKENDS:
        raise BuildError(f"Triton has no backend for engine {engine!r}; it has {', '.join(_BACKENDS)}: export for one")


def check_batches(engine: str) -> None:
    """Raise BuildError where engines of this kind hold one frame, and no batch of them."""
    if engine not in _BATCHED:
        raise BuildError(
            f"engines of {engine!r} are compiled for one frame, so that Triton has no batches to gather; more at a "
            f"time are more instances. Batches are for targets of {', '.join(_BATCHED)}"
        )


def write_repository(
    artifact: Path, repository: Path, *, instances: int = 1, max_batch: int | None = None
) -> tuple[str, ...]:
    """Write the artifact into a Triton model ``repository``, and return the names of its models, the one to ask last.

    ``instances``, 1 or more, of the network run at a time. With ``max_batch``, 1 or more, every tensor has an axis for
    frames in front, and Triton gathers up to so many of the requests that wait (`triton_batches`); without, a request
    is one frame. Models of these names that this function wrote before are replaced, each in one step; others stay.
    Raises ArtifactError for an artifact that is incomplete or altered, BuildError where it is of an engine that Triton
    does not run, or not in batches, TensorRT's that is not compiled yet, or the disk refuses, SpecError for numbers
    below 1.
    """
    if instances < 1:
        raise SpecError(f"{instances} instances of {artifact} would answer nothing: give 1 or more")
    if max_batch is not None and max_batch < 1:
        raise SpecError(f"batches of {max_batch} frames would answer nothing: give 1 or more")
    manifest = Manifest.read(artifact)
    check_engine(manifest.engine)
    if max_batch is not None:
        check_batches(manifest.engine)
    manifest.verify_files(artifact)
    name = manifest.model.name
    if manifest.engine == "onnxruntime" and manifest.frame_size is not None:
        return _write_ensemble(artifact, manifest, repository, instances, max_batch)
    files = _engine_files(artifact, manifest)

    def fill(folder: Path) -> None:
        for file, source in files.items():
            if max_batch is None:
                shutil.copyfile(source, folder / file)
            else:
                _write_batched(source, folder / file)

    config = _config(name, manifest.engine, manifest.inputs, manifest.outputs, instances, max_batch)
    _write_model(repository, {**config, **_meaning(manifest)}, manifest, fill)
    return (name,)


def _write_batched(source: Path, target: Path) -> None:
    import onnx  # which a copy does not need

    from emadeploy.build.triton_batches import batched

    onnx.save(batched(onnx.load(source)), target)


def _write_ensemble(
    artifact: Path, manifest: Manifest, repository: Path, instances: int, max_batch: int | None
) -> tuple[str, ...]:
    from emadeploy.build.triton_parts import cut  # onnx, which no other engine needs here

    name = manifest.model.name
    steps = []
    parts = cut(artifact / manifest.engine_file, manifest)
    for part in parts:
        count = instances if part.name == "network" else 1
        config = _config(f"{name}-{part.name}", "onnxruntime", part.inputs, part.outputs, count, max_batch)
        _write_model(repository, config, manifest, part.write if max_batch is None else part.write_batched)
        maps = {f"{side}_map": _same(specs) for side, specs in (("input", part.inputs), ("output", part.outputs))}
        steps.append({"model_name": config["name"], "model_version": -1, **maps})
    ensemble = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": max_batch or 0,
        "input": _tensors(manifest.inputs, max_batch),
        "output": _tensors(manifest.outputs, max_batch),
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
    name: str,
    engine: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    instances: int,
    max_batch: int | None,
) -> dict[str, Any]:
    """Return the configuration of a model, whose first request finds it warm.

    Batches are of the requests that wait when an instance is free: none is made to wait for another.
    """
    backend, kind, file = _BACKENDS[engine]
    taken = _tensors(inputs, max_batch)
    black = {
        tensor["name"]: {"data_type": tensor["data_type"], "dims": tensor["dims"], "zero_data": True}
        for tensor in taken
    }
    return {
        "name": name,
        "backend": backend,
        "default_model_filename": file,
        "max_batch_size": max_batch or 0,
        **({} if max_batch is None else {"dynamic_batching": {}}),
        "input": taken,
        "output": _tensors(outputs, max_batch),
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


def _tensors(specs: tuple[TensorSpec, ...], max_batch: int | None) -> list[dict[str, Any]]:
    """Return the tensors as configurations say them: where there are batches, without the axis for frames."""
    return [
        {
            "name": spec.name,
            "data_type": Symbol(_TYPES[spec.dtype]),
            "dims": list(spec.shape if max_batch is None else frame_shape(spec.shape)),
        }
        for spec in specs
    ]


def _map(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _same(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return _map({spec.name: spec.name for spec in specs})
