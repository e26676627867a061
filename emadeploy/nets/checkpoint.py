"""A checkpoint on disk: weights, the specification they belong to, and what is known about them.

    FOLDER/checkpoint.json                    the record: spec, step, metrics, digests of the files below
    FOLDER/model-<digest>.safetensors         the weights
    FOLDER/quantisation-<digest>.json         scales that were learned with fake quantisation, where they were
    FOLDER/<name>-<digest>.<suffix>           extra files, such as an optimiser's state

A file's name carries the start of its SHA-256 digest, so saving never touches the files of the checkpoint before:
new files are written beside them, then ``checkpoint.json`` is replaced, in one step, and only then the old ones go.
Killed at any moment, the folder holds the old checkpoint or the new one, complete; what a killed save leaves behind
is swept by the next. Reading checks every digest, and never runs a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.spec import ModelSpec, to_plain
from emadeploy.nets.build import build
from emadeploy.nets.entries import fill, to_storage
from emadeploy.nets.network import Network
from emadeploy.nets.quantised import QUANTISATION, QuantisedNetwork, from_json, to_json
from emadeploy.nets.resize import Size, resize_state_dict

SCHEMA = 1
RECORD_NAME = "checkpoint.json"
WEIGHTS = "model.safetensors"
DTYPES = ("float32", "float16")

_OURS = re.compile(r".+-[0-9a-f]{16}(\.\w+)?")
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint: its ``name`` in the folder, SHA-256 digest in hex, and size in bytes."""

    name: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name or self.name.startswith("."):
            raise ArtifactError(f"{self.name!r} is not the name of a file inside a checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that exists in ``folder``.

    ``metrics`` is plain data, usually task -> metric -> value. ``files`` maps what a file is, `WEIGHTS` or the name
    of an extra file, to what is stored. ``dtype`` is the type the weights are stored in; they load as float32.
    """

    folder: Path
    spec: ModelSpec
    step: int
    metrics: Mapping[str, Any]
    files: Mapping[str, StoredFile]
    dtype: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights' file, in hex: what these weights are identified by."""
        return self.files[WEIGHTS].sha256

    def path(self, name: str = WEIGHTS) -> Path:
        """Return where the file ``name`` lies; raises ArtifactError where the checkpoint has none of that name."""
        if name not in self.files:
            raise ArtifactError(f"{self.folder} holds no {name!r}; it holds {', '.join(self.files)}")
        return self.folder / self.files[name].name

    def read(self, name: str = WEIGHTS) -> bytes:
        """Return the bytes of a file, checked against its digest; raises ArtifactError where they differ."""
        path, record = self.path(name), self.files[name]
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing; {RECORD_NAME} lists it. Copy the whole folder again") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
        if len(content) != record.bytes:
            raise ArtifactError(
                f"{path} has {len(content)} bytes, {RECORD_NAME} says {record.bytes}: truncated or altered. "
                "Copy it again, or use another checkpoint"
            )
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise ArtifactError(
                f"{path} differs from its digest in {RECORD_NAME}: altered. Copy it again, or use another checkpoint"
            )
        return content

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights, float32; raises ArtifactError."""
        try:
            stored = safetensors.torch.load(self.read())
        except SafetensorError as error:
            raise ArtifactError(f"{self.path()} is not a safetensors file ({error})") from None
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}

    def quantisation(self) -> dict[str, Any] | None:
        """Return what was learned beside the weights (`QuantisedNetwork.learned`); ``None`` for most checkpoints.

        Weights and metrics are then those of fine-tuning with fake quantisation for its 'target'. Raises ArtifactError.
        """
        return from_json(self.read(QUANTISATION), str(self.path(QUANTISATION))) if QUANTISATION in self.files else None

    def model(self, *, size: Size | None = None) -> Network:
        """Return the network with these weights, in training mode as every new module.

        Args:
            size: height and width of the image, where it is not that of the spec; the fusion weights are resized.

        Raises:
            ArtifactError: the weights do not fit the specification, or are altered.
        """
        state, spec = self.state_dict(), self.spec
        if size is not None and tuple(size) != spec.input.size:
            state = resize_state_dict(state, spec.input.size, size, spec.ctal.stride)
            spec = replace(spec, input=replace(spec.input, height=size[0], width=size[1]))
        model = build(spec)
        fill(model, state, f"{self.path()} as model {spec.name!r} ({spec.network})")
        return model


def load(folder: str | os.PathLike[str], *, size: Size | None = None) -> Network:
    """Return the network of the checkpoint in ``folder``; see `Checkpoint.model`. Raises ArtifactError."""
    return read_checkpoint(folder).model(size=size)


def read_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Return the record of the checkpoint in ``folder``. Its files are checked when they are read.

    Raises:
        ArtifactError: there is no checkpoint, or its record is damaged, foreign or of another version.
    """
    folder = Path(folder)
    path = folder / RECORD_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        what = (
            f"has no {RECORD_NAME}" if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
        )
        raise ArtifactError(
            f"{folder} {what}; a checkpoint is a folder that `emadeploy train` or `emadeploy import` made, "
            "such as runs/NAME/best"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    try:
        return _from_json(folder, text)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def save_checkpoint(
    folder: str | os.PathLike[str],
    model: Network | QuantisedNetwork,
    spec: ModelSpec,
    *,
    step: int = 0,
    metrics: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    dtype: str = "float32",
) -> Checkpoint:
    """Save ``model`` in ``folder``, replacing the checkpoint there, if any, in one step; see the module's docstring.

    Args:
        model: the network; of one that is fine-tuned with fake quantisation, its weights and what it has learned.
        spec: the specification that builds the model, stored with it.
        step: optimiser steps so far.
        metrics: plain data about the model's accuracy.
        extra_files: bytes by name, such as ``{"trainer.pt": ...}``, that land in the same step.
        dtype: "float32", or "float16" for shipping; `to_storage` says what stays in float32.

    Raises:
        SpecError: the type is unknown.
        ArtifactError: the folder cannot be written.
    """
    if dtype not in DTYPES:
        raise SpecError(f"checkpoint dtype {dtype!r} is unknown; known: {', '.join(DTYPES)}")
    folder = Path(folder)
    learned = {QUANTISATION: to_json(model)} if isinstance(model, QuantisedNetwork) else {}
    network = model.network if isinstance(model, QuantisedNetwork) else model
    weights = safetensors.torch.save(to_storage(network.state_dict(), dtype))
    contents = {WEIGHTS: weights, **learned, **(extra_files or {})}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: _write_addressed(folder, name, content) for name, content in contents.items()}
        checkpoint = Checkpoint(folder, spec, step, dict(metrics or {}), files, dtype, _versions())
        _sync(folder)  # the files' names must be on disk before the record that lists them
        _write(folder, RECORD_NAME, _to_json(checkpoint).encode())
        _sync(folder)
        _sweep(folder, keep={file.name for file in files.values()})
    except OSError as error:
        raise ArtifactError(f"the checkpoint {folder} cannot be written: {error.strerror or error}") from error
    return checkpoint


def _write_addressed(folder: Path, name: str, content: bytes) -> StoredFile:
    """Write a file under a name that carries its digest, and return its record."""
    digest = hashlib.sha256(content).hexdigest()
    path = Path(name)
    record = StoredFile(f"{path.stem}-{digest[:16]}{path.suffix}", digest, len(content))
    _write(folder, record.name, content)
    return record


def _write(folder: Path, name: str, content: bytes) -> None:
    """Write a file so that it has its name only once its content is on disk."""
    partial = folder / f"{_PARTIAL}{name}"
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / name)


def _sync(folder: Path) -> None:
    """Bring a folder's list of names to disk, where the system can (Windows cannot open a folder)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove files of earlier saves, finished or killed; files with other names are not ours and stay."""
    for path in folder.iterdir():
        ours = path.name.startswith(_PARTIAL) or _OURS.fullmatch(path.name)
        if ours and path.name not in keep and path.is_file():
            path.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    from emadeploy import __version__  # not at import time: the package's face imports the runtime

    return {"emadeploy": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _to_json(checkpoint: Checkpoint) -> str:
    data = to_plain(replace(checkpoint, folder=Path()))
    del data["folder"]
    return json.dumps({"schema": SCHEMA, **data}, indent=2, default=float) + "\n"


def _from_json(folder: Path, text: str) -> Checkpoint:
    try:
        data = json.loads(text)
        schema = data.pop("schema", None)
        if schema != SCHEMA:
            raise ArtifactError(f"has schema {schema!r}, this version of emadeploy reads {SCHEMA}: update emadeploy")
        data["spec"] = ModelSpec.from_dict(data["spec"])
        data["files"] = {name: StoredFile(**record) for name, record in data["files"].items()}
        if WEIGHTS not in data["files"]:
            raise ArtifactError(f"lists no {WEIGHTS}")
        return Checkpoint(folder=folder, **data)
    except (ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        raise ArtifactError(f"not the record of a checkpoint ({type(error).__name__}: {error})") from None
