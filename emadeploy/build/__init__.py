"""Floor 2: from a graph to an artifact, one module per engine; a table of import strings, so that listing them is free.

Each module that builds has the name of its engine and one public function, ``build`` (:class:`Build`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import BuildError
from emadeploy.contract.guarded import Guarded
from emadeploy.contract.manifest import TARGETS, Manifest


class Build(Protocol):
    """What makes the artifacts of an engine: its function ``build``."""

    def __call__(self, graph: OnnxGraph, output: Path, target: str) -> Manifest:
        """Make the artifact of ``graph`` for ``target`` at ``output``, and return its manifest.

        What was at ``output`` is replaced in one step. Raises BuildError where the engine cannot load the graph, a
        precision that was asked for is not obtained, the disk refuses, or ``output`` is something else; DeviceError
        where this machine lacks what the target needs. Then nothing is left behind.
        """


#: Engine -> its ``build``.
BUILDERS: dict[str, Guarded] = {
    "onnxruntime": Guarded("emadeploy.build.onnxruntime:build", "onnxruntime", "onnxruntime"),
    "openvino": Guarded("emadeploy.build.openvino:build", "openvino", "openvino"),
    "tensorrt": Guarded("emadeploy.build.tensorrt:build", "onnx", "export"),
    "tensorrt_rtx": Guarded("emadeploy.build.tensorrt:build", "onnx", "export"),
}


def targets() -> tuple[str, ...]:
    """Return the targets that this version builds, each for an engine that may or may not be installed here."""
    return tuple(target for target, (engine, _) in TARGETS.items() if engine in BUILDERS)


def builder(engine: str) -> Build:
    """Return the function that builds artifacts of ``engine``.

    Raises BuildError where this version builds none for them, BackendMissing where the engine's package is not
    installed.
    """
    found = BUILDERS.get(engine)
    if found is None:
        raise BuildError(f"engine {engine!r} is not in this version; it builds {', '.join(targets())}")
    build: Build = found.load(f"building for engine {engine!r}")
    return build
