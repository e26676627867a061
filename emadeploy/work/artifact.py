"""What the network of an artifact takes, from the artifact's own graph."""

from __future__ import annotations

from pathlib import Path

from emadeploy.contract.errors import ArtifactError, BackendMissing
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.work import Work
from emadeploy.work.layers import work_of
from emadeploy.work.net import Net
from emadeploy.work.openvino_net import read_openvino


def read_work(artifact: Path, *, uniform: str | None = None) -> Work:
    """Return what the artifact's network takes in the precision that its graph says, or in a ``uniform`` one.

    Raises ArtifactError where the artifact is damaged or holds no graph, BackendMissing where reading ONNX needs the
    package.
    """
    manifest = Manifest.read(artifact)
    graphs = [name for name in (manifest.engine_file, *manifest.files) if name.endswith((".onnx", ".xml"))]
    if not graphs:
        raise ArtifactError(
            f"{artifact} holds no graph that layers could be read from (files: {', '.join(manifest.files)}): give the "
            "artifact that `emadeploy export` made"
        )
    if problem := manifest.file_problem(artifact, graphs[0]):
        raise ArtifactError(problem)
    net = _net(artifact / graphs[0])
    return work_of(net, uniform=uniform, rest=manifest.rest if manifest.engine == "openvino" else None)


def _net(path: Path) -> Net:
    if path.suffix == ".xml":
        return read_openvino(path)
    try:
        from emadeploy.work.onnx_net import read_onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise BackendMissing.of(f"reading the layers of {path}", "onnx", "export") from None
    return read_onnx(path)
