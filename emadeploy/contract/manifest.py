"""The manifest of an artifact: everything about an engine that a user, a robot or a later stage may need to know.

An artifact is a folder: the engine's files and ``manifest.json``. Only it crosses to the edge.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.contract.health import HealthRange
from emadeploy.contract.plain import (
    as_list,
    as_mapping,
    is_a,
    known_fields,
    make,
    one_of,
    require,
    spec_path,
    to_plain,
)
from emadeploy.contract.spec import ModelSpec, TensorSpec

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
#: What layers that are not int8 may run in.
RESTS = ("fp32", "bf16", "fp16")
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
    - ``precision``: obtained precision per branch of the network, e.g. ``{"backbone": "int8", "ctal": "mixed", ...}``,
      empty until the engine is compiled; ``asked``: the precision asked for per branch, empty where it is the
      target's everywhere.
    - ``rest``: what the layers that are not int8 run in, 'fp32', 'bf16' or 'fp16', where the engine is told so when it
      loads. ``audit``: what the engine really ran in, per branch: 'branches', 'total', 'engine', 'machine'.
    - ``engine_file``: the file that the engine loads; ``files``: every file of the artifact but the manifest.
    - ``inputs`` / ``outputs``: the graph's tensors. ``frame_size``: the (height, width) of the uint8 frame that the
      graph takes, resizing, normalising and decoding inside; ``None`` where the runtime does that.
    - ``graph``: opset, CTAL form, rewrites applied. ``source``: digests of what it was made from, ``untrained``.
    - ``parity``: agreement with PyTorch per task; ``accuracy``: metrics per task where measured, with their data.
    - ``calibration``: recipe and frame digests, for int8. ``versions``: of the libraries and the machine.
    - ``health``: how well the maps fit together on known frames, as :class:`emadeploy.contract.health.HealthRange` has
      it; ``None`` where it was not measured.
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
    asked: Mapping[str, str] = field(default_factory=dict)
    rest: str = "fp32"
    audit: Mapping[str, Any] | None = None
    health: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        with spec_path("manifest"):
            one_of("target", self.target, tuple(TARGETS))
            one_of("rest", self.rest, RESTS)
            for name in ("precision", "graph", "source", "parity", "versions", "asked"):
                as_mapping(name, getattr(self, name))
            for name in ("accuracy", "calibration", "audit", "health"):
                as_mapping(name, getattr(self, name) or {})
            if self.health is not None:
                HealthRange.from_dict(self.health)
            require(self.engine_file in self.files, f"engine file {self.engine_file!r} is not among its files")
            for name in self.files:
                inside = name not in ("", ".", "..", MANIFEST_NAME) and PureWindowsPath(name).name == name
                require(inside, f"{name!r} is not the name of a file inside the artifact")
            size = self.frame_size
            fits = size is None or (len(size) == 2 and all(is_a(int, extent) and extent > 0 for extent in size))
            require(fits, f"frame_size {size} is not (height, width)")

    @property
    def engine(self) -> str:
        """The engine that runs the artifact: 'onnxruntime', 'openvino', 'tensorrt' or 'tensorrt_rtx'."""
        return TARGETS[self.target][0]

    @property
    def compiled(self) -> bool:
        """False where the artifact is a portable graph that only its device can compile: nothing is obtained yet."""
        return bool(self.precision)

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
            data = dict(as_mapping("it", json.loads(text)))
            if "schema" in data and data["schema"] != SCHEMA:
                raise ArtifactError(f"manifest has schema {data['schema']!r}, this version of emadeploy reads {SCHEMA}")
            require("schema" in data, "it has no field 'schema'")
            del data["schema"]
            data = known_fields(cls, data)
            data["model"] = ModelSpec.from_dict(data.get("model", {}))
            files = as_mapping("files", data.get("files"))
            data["files"] = {name: _file_record(name, record) for name, record in files.items()}
            for key in ("inputs", "outputs"):
                tensors = as_list(key, data.get(key))
                data[key] = tuple(TensorSpec.from_dict(as_mapping("a tensor", tensor)) for tensor in tensors)
            if data.get("frame_size") is not None:
                data["frame_size"] = tuple(as_list("frame_size", data["frame_size"]))
            return make(cls, data)
        except (ValueError, RecursionError, SpecError) as error:
            raise ArtifactError(f"not a manifest of emadeploy: {error}") from None

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
        for name in self.files:
            problem = self.file_problem(directory, name)
            if problem:
                raise ArtifactError(problem)

    def file_problem(self, directory: Path, name: str) -> str | None:
        """Return what is wrong with the file ``name`` of the artifact in ``directory``; ``None`` where nothing is."""
        path, record = directory / name, self.files[name]
        try:
            if not path.is_file():
                return f"{path} is missing; the manifest lists it. Copy the whole folder, or export again"
            size = path.stat().st_size
            if size != record.bytes:
                return f"{path} has {size} bytes, the manifest says {record.bytes}: truncated or altered. Export again"
            if file_digest(path) != record.sha256:
                return f"{path} differs from the digest in the manifest: altered. Export again"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        return None


def _file_record(name: str, data: object) -> FileRecord:
    with spec_path(f"file {name!r}"):
        return make(FileRecord, known_fields(FileRecord, as_mapping("its record", data)))


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
