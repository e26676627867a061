"""The range of health on known frames, measured with the engine that ships and kept in its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from emadeploy.contract.errors import SpecError
from emadeploy.contract.health import Health, HealthRange, health, judgeable
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.preprocess import UInt8, resize_bilinear
from emadeploy.runtime import Runtime, load

#: Frames that are looked at: the range of health settles after a few, and each takes an inference.
FRAMES = 32


def note_health(artifact: Path, frames: Iterable[UInt8], described: str, *, judged: Path | None = None) -> Manifest:
    """Run up to 32 ``frames`` and write the range of their health into the manifest of ``artifact``, which it returns.

    ``described`` names the frames there. ``judged`` is what runs in its place where only its device can compile it. A
    model without maps to compare, one with random weights, and frames without a valid depth leave the manifest as it
    is. Raises ArtifactError, BackendMissing, DeviceError.
    """
    manifest = Manifest.read(artifact)
    if manifest.untrained or not judgeable(manifest.model.tasks):
        return manifest
    with load(judged or artifact) as perception:
        seen = [found for frame in islice(frames, FRAMES) if (found := _health(perception, frame)) is not None]
    return keep_health(artifact, seen, described)


def keep_health(artifact: Path, seen: Iterable[Health], described: str) -> Manifest:
    """Write the range of what was ``seen`` on frames, as `note_health`, which is for those that did not run yet."""
    manifest = Manifest.read(artifact)
    try:
        found = HealthRange.of(seen)
    except SpecError:  # nothing seen, or no frame with a valid depth
        return manifest
    manifest = replace(manifest, health={**found.to_dict(), "data": described})
    manifest.write(artifact)
    return manifest


def _health(perception: Runtime, frame: UInt8) -> Health | None:
    size = perception.manifest.frame_size
    if size is not None and frame.shape[:2] != size:
        frame = np.rint(resize_bilinear(np.moveaxis(frame, 2, 0), size)).astype(np.uint8).transpose(1, 2, 0)
    return health(perception(frame), perception.spec.tasks)
