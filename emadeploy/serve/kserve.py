"""Manifests for KServe: the same artifacts behind `emadeploy serve` in a cluster, or a Triton repository of them.

emadeploy.yaml    an InferenceService of our image, which serves the artifacts in the folder at the storage URI
triton.yaml       an InferenceService of KServe's Triton runtime, for `emadeploy export --layout triton` at that URI
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emadeploy.contract.errors import SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.serve.gate import Limits
from emadeploy.serve.models import served_names

#: Where KServe's storage initialiser puts what is at the storage URI.
_MOUNT = "/mnt/models"
_PORT = 8080
#: What KServe 0.11 and newer fetches models from.
_SCHEMES = ("pvc", "s3", "gs", "https", "http", "hdfs", "webhdfs", "oci", "hf")
#: Seconds for requests and engines to end; Kubernetes would kill the container 30 s after it asked it to end.
_CLOSING = 15
#: The secret that may hold the token, and its key.
_SECRET, _KEY = "emadeploy-token", "token"


@dataclass(frozen=True)
class Cluster:
    """Where manifests are for: our ``image``, the ``storage`` URI of the models, and the limits of the server."""

    image: str
    storage: str
    queue: int = 8
    timeout: float = 30.0
    max_body: int = 64

    def __post_init__(self) -> None:
        Limits(timeout=self.timeout)  # refuses what is no time
        scheme, separator, rest = self.storage.partition("://")
        if scheme not in _SCHEMES or not separator or not rest or re.search(r"\s", rest):
            raise SpecError(
                f"--storage {self.storage!r} is no URI of {', '.join(_SCHEMES)}, such as pvc://models/robots"
            )
        if not re.fullmatch(r"[a-z0-9][a-z0-9._/:@-]*", self.image):
            raise SpecError(
                f"--image {self.image!r} is no name of an image, such as registry.local/emadeploy:0.1.0-x86"
            )


def manifests(artifacts: Sequence[Path], cluster: Cluster) -> dict[str, str]:
    """Return file name -> YAML for the ``artifacts``, which must lie under their folders' names at the storage URI.

    Triton has its own only where it runs the engines. Raises ArtifactError where one cannot be read, SpecError for
    names that cannot be served.
    """
    read = {name: Manifest.read(path) for name, path in served_names(artifacts).items()}
    engines = {manifest.engine for manifest in read.values()}
    gpu = any(engine.startswith("tensorrt") for engine in engines)
    name = _name(next(iter(read)) if len(read) == 1 else "emadeploy")
    found = {"emadeploy.yaml": _service(name, _ours(list(read), cluster, gpu=gpu), cluster)}
    if "tensorrt_rtx" not in engines:
        found["triton.yaml"] = _service(f"{name}-triton", _triton(cluster, gpu=gpu), cluster)
    return {file: to_yaml(service) for file, service in found.items()}


def _service(name: str, predictor: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    seconds = int(cluster.timeout)
    limits = {"timeout": seconds + 1, "terminationGracePeriodSeconds": seconds + _CLOSING}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        # An engine stays loaded; Knative, which would stop it when idle, takes no startup probe and no grace period.
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"}},
        "spec": {"predictor": {"minReplicas": 1, **limits, **predictor}},
    }


def _ours(names: list[str], cluster: Cluster, *, gpu: bool) -> dict[str, Any]:
    folders = [f"{_MOUNT}/{name}" for name in names]
    flags = {"--host": "0.0.0.0", "--port": _PORT, "--queue": cluster.queue, "--timeout": f"{cluster.timeout:g}"}
    flags["--max-body"] = cluster.max_body
    container = {
        "name": "kserve-container",
        "image": cluster.image,
        "args": ["serve", *folders, *(str(part) for flag in flags.items() for part in flag)],
        "env": [
            {"name": "STORAGE_URI", "value": cluster.storage},
            {
                "name": "EMADEPLOY_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": _KEY, "optional": True}},
            },
        ],
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "readinessProbe": _probe("ready", periodSeconds=5, failureThreshold=3),
        "livenessProbe": _probe("live", periodSeconds=10, failureThreshold=3),
        # Loading an engine takes seconds; TensorRT may compile it first.
        "startupProbe": _probe("ready", periodSeconds=5, failureThreshold=240 if gpu else 24),
        "resources": _resources(gpu=gpu),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {"containers": [container]}


def _triton(cluster: Cluster, *, gpu: bool) -> dict[str, Any]:
    model = {
        "modelFormat": {"name": "triton"},
        "protocolVersion": "v2",
        "storageUri": cluster.storage,
        "resources": _resources(gpu=gpu),
    }
    return {"model": model}


def _probe(what: str, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{what}", "port": _PORT}, "timeoutSeconds": 3, **times}


def _resources(*, gpu: bool) -> dict[str, Any]:
    needed = {"cpu": "2", "memory": "4Gi"}
    # A GPU is asked for and limited alike: Kubernetes shares none.
    accelerator = {"nvidia.com/gpu": "1"} if gpu else {}
    return {"requests": {**needed, **accelerator}, "limits": {"memory": needed["memory"], **accelerator}}


def _name(folder: str) -> str:
    """Return a name of Kubernetes: letters, digits and '-', from a letter on, at most 40 of them."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"m-{plain}")[:40].rstrip("-")


def to_yaml(value: Mapping[str, Any]) -> str:
    """Return ``value`` as YAML in blocks; scalars are those of JSON, which YAML takes as they are."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        head = f"{key}:" if isinstance(value, Mapping) else "-"
        if not isinstance(item, Mapping | list) or not item:
            yield f"{head} {json.dumps(item)}"
        elif isinstance(value, Mapping):
            yield head
            yield from (f"  {line}" for line in _lines(item))
        else:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
