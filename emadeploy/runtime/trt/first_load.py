"""An artifact that is not compiled yet is compiled when it is first loaded on its device: once, and not in silence."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from emadeploy.contract.errors import ArtifactError, BuildError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.trt.compiling import Options, compiled
from emadeploy.runtime.trt.device import here
from emadeploy.runtime.trt.layers import EngineLayer
from emadeploy.runtime.trt.library import Library
from emadeploy.runtime.trt.memory import Gpu
from emadeploy.runtime.trt.record import EngineRecord

_log = logging.getLogger(__name__)


def compile_once(directory: Path, manifest: Manifest, library: Library, gpu: Gpu) -> None:
    """Compile the artifact in ``directory`` for ``gpu`` as `emadeploy build` does, with its defaults and no audit.

    Raises ArtifactError that offers `emadeploy build` where the folder cannot be written, the GPU is not the one that
    is compiled for, or the build fails, also because no layer runs in the precision of the target.
    """
    command = f"emadeploy build {directory}"
    if gpu.index and here(0, gpu.driver) != gpu.device:
        raise ArtifactError(
            f"{directory} is not compiled yet, and gpu:{gpu.index} is not the first GPU, for which engines are "
            f"compiled: CUDA_VISIBLE_DEVICES={gpu.index} {command}"
        )
    if not os.access(directory, os.W_OK):
        raise ArtifactError(
            f"{directory} is not compiled yet, and the engine cannot be put there: no right to write. As a user "
            f"who may, on this machine: {command}"
        )
    who = f"{gpu.device.name} by {library.title} {library.version_text}"
    how = f"`{command}` does it beforehand and tells which precision its layers run in"
    _log.warning("%s is compiled for %s, once: this takes minutes. %s", directory, who, how)
    try:
        with compiled(directory, Options(), lambda *_: None) as made:
            _check_precision(made.layers, TARGETS[manifest.target][1])
            made.record.write(directory, made.made)
    except BuildError as error:
        raise ArtifactError(f"{directory} could not be compiled at its first load: {error}. See `{command}`") from None
    _log.warning("%s is compiled: %.0f s", directory, EngineRecord.read(directory).seconds)


def _check_precision(layers: tuple[EngineLayer, ...], wanted: str) -> None:
    found = {layer.precision for layer in layers if layer.compute and layer.precision != "unknown"}
    if found and wanted not in found:
        raise BuildError(f"{wanted} was asked for, and its layers run in {', '.join(sorted(found))} alone")
