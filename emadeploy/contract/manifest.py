"""The manifest of an artifact: everything about an engine that a user, a robot or a later stage may need to know.

An artifact is a folder: the engine's files and ``manifest.json``. Only it crosses to the edge.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.spec import ModelSpec, TensorSpec, to_plain

SCHEMA = 1
MANIFEST_NAME = "manifest.json"

#: target -> (engine, precision)
TARGETS: dict[str, tuple[str, str]] = {
    "onnxruntime-fp32": ("onnxruntime", "fp32"),
    "onnxruntime-int8": ("onnxruntime", "int8"),
    "openvino-fp32": ("openvino", "fp32"),
    "openvino-bf16": ("openvino", "bf16"),
    "openvino-int8": ("openvino", "int8"),
    "trt-fp32": ("tensorrt", "fp32"),
    "trt-fp16": ("tensorrt", "fp16"),
    "trt-int8": ("tensorrt", "int8"),
    "trt-rtx-fp32": ("tensorrt_rtx", "fp32"),
    "trt-rtx-fp16": ("tensorrt_rtx", "fp16"),
    "trt-rtx-int8": ("tensorrt_rtx", "int8"),
}
_ALIASES = {"ort-fp32": "onnxruntime-fp32", "ort-int8": "onnxruntime-int8"}


def parse_target(name: str) -> str:
    """Return the full target name for ``name`` or its alias ('ort-*'); raises SpecError listing the known ones."""
    target = _ALIASES.get(name, name)
    if target not in TARGETS:
        raise SpecError(f"target {name!r} is unknown; known: {', '.join(TARGETS)}; aliases: {', '.join(_ALIASES)}")
    return target


@dataclass(frozen=True)
class FileRecord:
    """A file of an artifact: its SHA-256 digest in hex and its size in bytes."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Return the record of the file at ``path``."""
        return cls(file_digest(path), path.stat().st_size)


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and where it comes from.

    - ``model``: the specification, with the input size and tasks as exported; ``target``: a key of TARGETS.
    - ``precision``: obtained precision per branch of the network, e.g. ``{"backbone": "fp32", ...}``.
    - ``engine_file``: the file that the engine loads; ``files``: every file of the artifact but the manifest.
    - ``inputs`` / ``outputs``: the graph's tensors. ``frame_size``: the (height, width) of the uint8 frame that the
      graph takes, resizing, normalising and decoding inside; ``None`` where the runtime does that.
    - ``graph``: opset, CTAL form, rewrites applied. ``source``: digests of what it was made from, ``untrained``.
    - ``parity``: agreement with PyTorch per task; ``accuracy``: metrics per task where measured, with their data.
    - ``calibration``: recipe and frame digests, for int8. ``versions``: of the libraries and the machine.
    """

    model: ModelSpec
    target: str
    precision: Mapping[str, str]
    engine_file: str
    files: Mapping[str, FileRecord]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    frame_size: tuple[int, int] | None = None
    graph: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise SpecError(f"manifest: target {self.target!r} is unknown; known: {', '.join(TARGETS)}")
        if self.engine_file not in self.files:
            raise SpecError(f"manifest: engine file {self.engine_file!r} is not among its files")
        for name in self.files:
            if not name or name == MANIFEST_NAME or Path(name).name != name:
                raise SpecError(f"manifest: {name!r} is not the name of a file inside the artifact")

    @property
    def engine(self) -> str:
        """The engine that runs the artifact: 'onnxruntime', 'openvino', 'tensorrt' or 'tensorrt_rtx'."""
        return TARGETS[self.target][0]

    @property
    def untrained(self) -> bool:
        """True where the weights are random: good for timing alone."""
        return bool(self.source.get("untrained", False))

    def to_json(self) -> str:
        """Return the manifest as json text."""
        return json.dumps({"schema": SCHEMA, **to_plain(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest. Raises ArtifactError where it is not one, or one of another schema."""
        try:
            data = json.loads(text)
            schema = data.pop("schema", None)
            if schema != SCHEMA:
                raise ArtifactError(f"manifest has schema {schema!r}, this version of emadeploy reads {SCHEMA}")
            data["model"] = ModelSpec.from_dict(data["model"])
            data["files"] = {name: FileRecord(**record) for name, record in data["files"].items()}
            for key in ("inputs", "outputs"):
                data[key] = tuple(TensorSpec.from_dict(tensor) for tensor in data[key])
            if data.get("frame_size") is not None:
                height, width = data["frame_size"]
                data["frame_size"] = (int(height), int(width))
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
            raise ArtifactError(f"not a manifest of emadeploy ({type(error).__name__}: {error})") from None

    def write(self, directory: Path) -> Path:
        """Write ``manifest.json`` into ``directory``, in one step, and return its path."""
        path = directory / MANIFEST_NAME
        partial = path.with_name(f".{MANIFEST_NAME}.{os.getpid()}")
        partial.write_text(self.to_json(), encoding="utf-8")
        os.replace(partial, path)
        return path

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of the artifact at ``directory``; raises ArtifactError."""
        path = directory / MANIFEST_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            hint = "an artifact is a folder made by `emadeploy export`"
            what = "is not a folder" if directory.exists() else "does not exist"
            what = "has no manifest.json" if directory.is_dir() else what
            raise ArtifactError(f"{directory} {what}; {hint}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from None
        try:
            return cls.from_json(text)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None

    def verify_files(self, directory: Path) -> None:
        """Compare every file in ``directory`` with its record; raises ArtifactError naming the first that differs."""
        for name, record in self.files.items():
            path = directory / name
            if not path.is_file():
                raise ArtifactError(f"{path} is missing; the manifest lists it. Copy the whole folder, or export again")
            size = path.stat().st_size
            if size != record.bytes:
                raise ArtifactError(
                    f"{path} has {size} bytes, the manifest says {record.bytes}: truncated or altered. Export again"
                )
            if file_digest(path) != record.sha256:
                raise ArtifactError(f"{path} differs from the digest in the manifest: altered. Export again")


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
