"""TensorRT's second half: a portable artifact is compiled, audited, and says so.

    ARTIFACT/engine-<digest>.plan, engine.json    `emadeploy.runtime.trt.record`
    ARTIFACT/manifest.json                        'precision' and 'audit' are filled in: what the engine runs in

It runs on the device, so it needs numpy and TensorRT alone, and reads the manifest in place of the graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emadeploy.build.audit import Layer, audit, check_obtained, obtained
from emadeploy.contract.branches import layer_branch
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.runtime.trt.compiling import Options, artifact_manifest, compiled, engine_key, is_compiled
from emadeploy.runtime.trt.layers import EngineLayer
from emadeploy.runtime.trt.library import load_library
from emadeploy.runtime.trt.process import Report
from emadeploy.runtime.trt.record import EngineRecord

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Built:
    """A compiled artifact: its manifest and the record of its engine; ``fresh`` unless it was there already."""

    manifest: Manifest
    record: EngineRecord
    fresh: bool


def compile_artifact(folder: Path, options: Options, report: Report, *, force: bool = False) -> Built:
    """Compile the portable artifact in ``folder``, unless its engine is of this machine and ``options`` already.

    With ``force``, in any case. Raises as `emadeploy.runtime.trt.compiling.compiled` does; BuildError also where a
    precision was asked for and not obtained. Then the artifact is what it was before.
    """
    manifest = artifact_manifest(folder)
    key, _ = engine_key(manifest, load_library(manifest.engine), options)
    found = None if force else is_compiled(folder, key, options)
    # One that was compiled at its first load has no audit yet.
    if found is not None and found.audit is not None:
        return Built(_written(manifest, found, folder), found, fresh=False)
    with compiled(folder, options, report) as engine:
        layers = graph_layers(engine.layers)
        known = [layer for layer in layers if layer.precision != UNKNOWN]
        _check(known, manifest)
        record = replace(engine.record, audit=_audit(layers, manifest, engine.record))
        record.write(folder, engine.made)
    return Built(_written(manifest, record, folder), record, fresh=True)


def graph_layers(layers: Iterable[EngineLayer]) -> list[Layer]:
    """Return the layers of an engine as those of the network, each in its branch; nobody measured their times."""
    return [
        Layer(layer.nodes, layer_branch(layer.nodes, compute=layer.compute), layer.precision, 0.0, layer.compute)
        for layer in layers
    ]


def _check(layers: list[Layer], manifest: Manifest) -> None:
    """Check that each layer runs in what its branch was asked for in, and in float32 what was kept there on purpose.

    Raises BuildError that names the branch or the layer.
    """
    calibration = manifest.calibration or {}
    float32 = frozenset(calibration.get("half", {}).get("float32", ()))
    for layer in layers:
        node = next((node for node in layer.nodes if node in float32), None)
        if layer.compute and node is not None and layer.precision in ("fp16", "bf16"):
            raise BuildError(
                f"{manifest.target}: {node!r} was kept in float32, which float16 would harm, and TensorRT runs it in "
                f"{layer.precision}: take TensorRT 10 or newer, which computes what the graph says, or export for "
                "trt-fp32"
            )
    precision = TARGETS[manifest.target][1]
    kept = float32.union(calibration.get("kept", ()))
    check_obtained(layers, manifest.target, defaultdict(lambda: precision, manifest.asked), kept)


def _audit(layers: list[Layer], manifest: Manifest, record: EngineRecord) -> dict[str, Any] | None:
    """Return the audit of an engine, without times; ``None`` where TensorRT told of no layer."""
    if not layers:
        return None
    key = record.key
    machine = key.gpu or f"none: built ahead of time for compute capability {', '.join(key.compute_capabilities)}"
    found = audit(layers, engine=f"{key.engine} {key.version}", machine=machine, branches=tuple(manifest.asked))
    for shares in (*found["branches"].values(), found["total"]):
        shares["time"] = {}  # nothing ran
    return found


def _precision(manifest: Manifest, record: EngineRecord) -> dict[str, str]:
    """Return the precision per branch; 'unknown' everywhere where TensorRT told of no layer."""
    if record.audit is None:
        return dict.fromkeys(manifest.asked, UNKNOWN)
    # A branch that multiplies nothing has the precision of most of its layers: there are no times to go by.
    branches = {name: {**shares, "time": shares["layers"]} for name, shares in record.audit["branches"].items()}
    return obtained({"branches": branches})


def _written(manifest: Manifest, record: EngineRecord, folder: Path) -> Manifest:
    """Return the manifest with what the engine of ``record`` obtained, on disk where it was not yet."""
    versions = {**manifest.versions, record.key.engine: record.key.version}
    told = replace(manifest, precision=_precision(manifest, record), audit=record.audit, versions=versions)
    if told != manifest:
        try:
            told.write(folder)
        except OSError as error:
            raise BuildError(f"{folder} cannot be written: {error.strerror or error}") from None
    return told
