"""The record of a compiled engine, beside the graph that it was compiled from.

    ARTIFACT/model.onnx               the graph, and manifest.json: portable
    ARTIFACT/engine-<digest>.plan     the engine: native code for one GPU, one driver, one version of TensorRT
    ARTIFACT/engine.json              this record

Writing ``engine.json`` makes an engine the artifact's: the plan is there before it, and older plans go after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emadeploy.contract.errors import ArtifactError, BuildError, DeviceError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.plain import as_list, as_mapping, known_fields, make, require, spec_path, to_plain
from emadeploy.runtime.trt.library import TITLES, Library

if TYPE_CHECKING:
    from emadeploy.runtime.trt.device import Device

SCHEMA = 1
RECORD_NAME = "engine.json"
#: A plan in memory; the record has a field called bytes.
Plan = bytes
_AGAIN = "compile it on this machine: emadeploy build"


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    - ``engine``: 'tensorrt' or 'tensorrt_rtx'; ``version``: of that library, as it writes it.
    - ``source``: SHA-256 of the graph that it was compiled from.
    - ``gpu``, ``driver``: of the machine that compiled it, empty where it was built ahead of time, without a GPU.
    - ``compute_capabilities``: of the GPUs that it runs on, such as ('8.7',).
    """

    engine: str
    version: str
    source: str
    compute_capabilities: tuple[str, ...]
    gpu: str = ""
    driver: str = ""

    def __post_init__(self) -> None:
        require(self.engine in TITLES, f"engine {self.engine!r} is unknown; known: {', '.join(TITLES)}")
        require(bool(self.compute_capabilities), "it names no compute capability")

    @classmethod
    def here(cls, library: Library, source: str, device: Device) -> EngineKey:
        """Return the key of what ``library`` compiles on ``device`` for itself, from the graph of digest ``source``."""
        capabilities = (device.compute_capability,)
        return cls(library.name, library.version_text, source, capabilities, device.name, device.driver)

    @property
    def ahead(self) -> bool:
        """Whether the engine was built ahead of time, for any GPU of its compute capabilities."""
        return not self.gpu

    def describe(self) -> str:
        """Return in words what an engine of this key runs on."""
        gpus = f"compute capability {' or '.join(self.compute_capabilities)}"
        where = f"any GPU of {gpus}" if self.ahead else f"{self.gpu} ({gpus}), driver {self.driver}"
        return f"{TITLES[self.engine]} {self.version} on {where}"


@dataclass(frozen=True)
class EngineRecord:
    """A compiled engine: its file ``plan`` with digest and size, what it depends on and how it was built.

    - ``settings``: 'workspace_mb', 'optimization_level' and 'dla'; ``None`` where TensorRT chose.
    - ``seconds``: how long it took. ``audit``: what its layers run in (`emadeploy.build.audit`); ``None``: not known.
    """

    plan: str
    sha256: str
    bytes: int
    key: EngineKey
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    audit: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        with spec_path(RECORD_NAME):
            # The name leads to no file outside of the folder.
            fits = re.fullmatch("[0-9a-f]{64}", self.sha256) and self.plan == plan_name(self.sha256)
            require(bool(fits), f"plan {self.plan!r} is not named by its digest")
            as_mapping("settings", self.settings)

    @classmethod
    def read(cls, folder: Path) -> EngineRecord:
        """Return the record in ``folder``; raises ArtifactError where there is none, or none that can be read."""
        path = folder / RECORD_NAME
        try:
            data = dict(as_mapping("it", json.loads(path.read_text(encoding="utf-8"))))
            if data.pop("schema", None) != SCHEMA:
                raise ArtifactError(f"{path} is of another version of emadeploy: {_AGAIN} {folder}")
            data = known_fields(cls, data)
            key = known_fields(EngineKey, as_mapping("key", data.get("key")))
            key["compute_capabilities"] = tuple(as_list("compute_capabilities", key.get("compute_capabilities")))
            data["key"] = make(EngineKey, key)
            return make(cls, data)
        except FileNotFoundError:
            raise ArtifactError(f"{folder} is not compiled yet: it holds a portable graph; {_AGAIN} {folder}") from None
        except (OSError, ValueError, RecursionError, SpecError) as error:
            raise ArtifactError(f"{path} is not the record of an engine ({error}); {_AGAIN} {folder}") from None

    def write(self, folder: Path, made: Path) -> None:
        """Make the plan at ``made``, a file inside ``folder``, the engine of the artifact in ``folder``.

        Raises BuildError where the disk refuses; then the engine that was there before is still the artifact's.
        """
        text = json.dumps({"schema": SCHEMA, **to_plain(self)}, indent=2) + "\n"
        partial = folder / f".{RECORD_NAME}.{os.getpid()}"
        try:
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(made, folder / self.plan)
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / RECORD_NAME)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise BuildError(f"{folder} cannot be written: {error.strerror or error}") from None
        for path in folder.glob("engine-*.plan"):
            if path.name != self.plan:
                with suppress(OSError):  # a process that runs it may still have it open
                    path.unlink()

    def check(self, folder: Path, manifest: Manifest, device: Device, library: Library) -> None:
        """Check that the engine is that of ``manifest``'s graph, and of this machine's library and GPU.

        Raises ArtifactError where it was compiled from another graph or for another engine, DeviceError where by
        another version or for another GPU; each says what it was built for, what is here and how to build it again.
        """
        source = manifest.files[manifest.engine_file].sha256
        if (self.key.engine, self.key.source) != (manifest.engine, source):
            raise ArtifactError(
                f"{folder / RECORD_NAME}: the engine was compiled from another graph than {manifest.engine_file} "
                f"({self.key.source[:12]}, not {source[:12]}); {_AGAIN} {folder}"
            )
        here = EngineKey.here(library, source, device)
        problem = self._problem(here)
        if problem:
            raise DeviceError(
                f"{folder}: {problem}. It was built for {self.key.describe()}; here is {here.describe()}: {_AGAIN} "
                f"{folder}"
            )

    def _problem(self, here: EngineKey) -> str | None:
        if self.key.version != here.version:
            major = self.key.version.split(".")[0]
            if major != here.version.split(".")[0]:
                return f"the engine needs TensorRT {major}, another major version than the one that is here"
            return "the engine is of another version of TensorRT"
        if here.compute_capabilities[0] not in self.key.compute_capabilities:
            return "the engine is for another GPU"
        if self.key.ahead:
            return None
        if self.key.gpu != here.gpu:
            return "the engine is for another GPU"
        if self.key.driver != here.driver:
            return "the engine is for another version of the driver"
        return None

    def plan_bytes(self, folder: Path) -> Plan:
        """Return the engine of the artifact in ``folder``; raises ArtifactError unless its digest is the record's."""
        path = folder / self.plan
        try:
            plan = path.read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing; {RECORD_NAME} names it: {_AGAIN} {folder}") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(plan).hexdigest() != self.sha256:
            raise ArtifactError(
                f"{path} differs from the digest in {RECORD_NAME}: damaged or altered. It is native code and was not "
                f"loaded; {_AGAIN} {folder} --force"
            )
        return plan


def plan_name(sha256: str) -> str:
    """Return the file name of the plan with this digest."""
    return f"engine-{sha256[:12]}.plan"
