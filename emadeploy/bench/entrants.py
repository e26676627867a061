"""What takes part in a measurement: engines, each with the process that runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emadeploy.bench.rows import Row
from emadeploy.contract.errors import EmadeployError, SpecError, one_line
from emadeploy.contract.manifest import Manifest
from emadeploy.runtime.machine import usable_cores

CHILD = (sys.executable, "-m", "emadeploy.bench.child")


@dataclass(frozen=True, eq=False)
class Entrant:
    """An engine to be measured: its ``row`` so far, and the process that runs it.

    ``argv``: the process, which speaks as :mod:`emadeploy.bench.child`; the path of the ``frame``, uint8 (H, W, 3) RGB,
    the threads and the device are added. ``trouble``: why it cannot even be started.
    """

    row: Row
    argv: Sequence[str]
    frame: npt.NDArray[np.uint8]
    device: str | None = None
    trouble: str | None = None


def entrant(
    name: str,
    artifact: Path,
    frame_HW3: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    device: str | None = None,
    child: Sequence[str] = CHILD,
) -> Entrant:
    """Return the entrant of an artifact. Raises SpecError for no thread, ArtifactError where there is no manifest."""
    if threads is not None and threads < 1:
        raise SpecError(f"threads {threads} is not positive")
    manifest = Manifest.read(artifact)
    mode = {
        "image_size": list(manifest.model.input.size),
        "frame": list(frame_HW3.shape[:2]),
        "tasks": [tensor.name for tensor in manifest.outputs],
        "untrained": manifest.untrained,
    }
    row = Row(
        name=name,
        target=manifest.target,
        status="not measured",
        size_mb=sum(record.bytes for record in manifest.files.values()) / 1e6,
        threads=threads or usable_cores(),
        mode=mode,
        artifact=str(artifact),
        digest=manifest.files[manifest.engine_file].sha256,
        precision=manifest.precision,
        untrained=manifest.untrained,
    )
    return Entrant(row, (*child, str(artifact.absolute())), frame_HW3, device)


def broken(name: str, artifact: Path, error: EmadeployError) -> Entrant:
    """Return the entrant of what is no artifact, or cannot be read: a row that says so."""
    trouble = f"failed: {type(error).__name__}: {one_line(error)}"
    row = Row(name, "unknown", trouble, None, None, artifact=str(artifact))
    return Entrant(row, (), np.zeros((1, 1, 3), np.uint8), trouble=trouble)
