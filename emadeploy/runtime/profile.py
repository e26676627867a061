"""Times of an artifact's layers, as its engine tells them: where the milliseconds of a frame go.

Measuring layers slows the engine down, some more than others: these times say what share a layer has, and not how fast
the artifact is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emadeploy.contract.errors import SpecError
from emadeploy.contract.guarded import Guarded
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import UInt8
from emadeploy.runtime.machine import usable_cores
from emadeploy.runtime.runtime import prepare
from emadeploy.runtime.session import Array, check_manifest

#: Engine -> its ``profile``.
PROFILERS: dict[str, Guarded] = {
    "onnxruntime": Guarded("emadeploy.runtime.profiles.onnxruntime:profile", "onnxruntime", "onnxruntime"),
    "openvino": Guarded("emadeploy.runtime.profiles.openvino:profile", "openvino", "openvino"),
    "tensorrt": Guarded("emadeploy.runtime.profiles.tensorrt:profile", "tensorrt", "tensorrt"),
    "tensorrt_rtx": Guarded("emadeploy.runtime.profiles.tensorrt:profile", "tensorrt_rtx", "tensorrt-rtx"),
}
#: Runs that are counted, after one that finds the memory.
RUNS = 9


@dataclass(frozen=True)
class LayerTime:
    """A layer that an engine ran.

    - ``name``: of the first node of the graph that it computes, or the engine's own; ``kind``: in the engine's words.
    - ``branch``: of the network, see :mod:`emadeploy.contract.branches`; ``precision``: 'int8', 'fp32', ...
    - ``milliseconds``: the median over the runs.
    """

    name: str
    kind: str
    branch: str
    precision: str
    milliseconds: float


class Profiler(Protocol):
    """The function ``profile`` of each module in :mod:`emadeploy.runtime.profiles`."""

    def __call__(
        self,
        directory: Path,
        manifest: Manifest,
        inputs: Mapping[str, Array],
        *,
        threads: int,
        device: str | None,
        runs: int,
    ) -> list[LayerTime]:
        """Run the artifact in ``directory``, whose digests are checked, 1 + ``runs`` times; return its layers in order.

        Raises ArtifactError where the engine cannot load it, DeviceError where the device is not here or fails.
        """


def profile(
    artifact: str | os.PathLike[str],
    frame: UInt8,
    *,
    runs: int = RUNS,
    threads: int | None = None,
    device: str | None = None,
) -> list[LayerTime]:
    """Return the layers of an artifact with their times on ``frame``, uint8 (H, W, 3) RGB, in the order they ran.

    ``threads`` and ``device`` are as :func:`emadeploy.load` has them. Raises SpecError for a number that is not
    positive, BackendMissing where the engine is not installed, and what loading raises.
    """
    for what, number in (("runs", runs), ("threads", threads)):
        if number is not None and number < 1:
            raise SpecError(f"{what} {number} is not positive")
    directory = Path(artifact)
    manifest = Manifest.read(directory)
    check_manifest(manifest)
    measure: Profiler = PROFILERS[manifest.engine].load(f"engine {manifest.engine!r}")
    manifest.verify_files(directory)
    inputs = prepare(manifest, frame)
    return measure(directory, manifest, inputs, threads=threads or usable_cores(), device=device, runs=runs)
