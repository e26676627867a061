"""Manifests for KServe, by the schema of its InferenceService and of Kubernetes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emadeploy.contract.errors import ArtifactError, SpecError
from emadeploy.serve.kserve import Cluster, manifests, to_yaml

yaml = pytest.importorskip("yaml")
Make = Callable[..., Path]
SCHEMA = Path(__file__).parents[1] / "reference" / "kserve_schema.json"
CLUSTER = Cluster("registry.local/emadeploy:0.1.0-x86", "pvc://models/robots", queue=3, timeout=7.5, max_body=9)


def check(service: Any) -> None:
    """Raise ValidationError where KServe or Kubernetes would not take the service."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(service)


def read(made: dict[str, str]) -> dict[str, Any]:
    return {name: yaml.safe_load(text) for name, text in made.items()}


def test_the_manifests_are_those_of_kserve(make_artifact: Make) -> None:
    found = read(manifests([make_artifact("emanet-rooms.onnxruntime-int8")], CLUSTER))
    assert list(found) == ["emadeploy.yaml", "triton.yaml"]
    for service in found.values():
        check(service)
        assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    ours, triton = (service["spec"]["predictor"] for service in found.values())
    (container,) = ours["containers"]
    assert (ours["timeout"], ours["terminationGracePeriodSeconds"]) == (8, 22)
    assert container["image"] == "registry.local/emadeploy:0.1.0-x86"
    assert container["env"][0] == {"name": "STORAGE_URI", "value": "pvc://models/robots"}
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert triton["model"]["modelFormat"] == {"name": "triton"}
    assert triton["model"]["storageUri"] == "pvc://models/robots"
    assert [service["metadata"]["name"] for service in found.values()] == [
        "emanet-rooms-onnxruntime-int8",
        "emanet-rooms-onnxruntime-int8-triton",
    ]


def test_the_arguments_are_those_of_the_command(make_artifact: Make) -> None:
    typer = pytest.importorskip("typer")
    from emadeploy.cli.app import app

    artifacts = [make_artifact("a"), make_artifact("b")]
    service = read(manifests(artifacts, CLUSTER))["emadeploy.yaml"]
    assert service["metadata"]["name"] == "emadeploy"
    name, *arguments = service["spec"]["predictor"]["containers"][0]["args"]
    command = typer.main.get_command(app).commands[name]
    parsed = command.make_context(name, arguments).params
    assert parsed["artifacts"] == [Path("/mnt/models/a"), Path("/mnt/models/b")]
    assert (parsed["host"], parsed["port"], parsed["queue"], parsed["timeout"]) == ("0.0.0.0", 8080, 3, 7.5)
    assert parsed["max_body"] == 9


@pytest.mark.parametrize(("target", "files"), [("trt-fp16", 2), ("trt-rtx-fp16", 1)])
def test_tensorrt_has_a_gpu_and_time_to_compile(make_artifact: Make, target: str, files: int) -> None:
    found = read(manifests([make_artifact(target=target, precision={})], CLUSTER))
    assert len(found) == files
    for service in found.values():
        check(service)
        predictor = service["spec"]["predictor"]
        resources = predictor.get("model", predictor.get("containers", [None])[0])["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"


def test_the_schema_refuses_what_it_does_not_know(make_artifact: Make) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    service = read(manifests([make_artifact()], CLUSTER))["emadeploy.yaml"]
    container = service["spec"]["predictor"]["containers"][0]
    for harm in ({"argz": []}, {"ports": [{"containerPort": "8080"}]}, {"securityContext": {"runAsNonRoot": "yes"}}):
        former = dict(container)
        container.update(harm)
        with pytest.raises(jsonschema.ValidationError):
            check(service)
        container.clear()
        container.update(former)
    check(service)


@pytest.mark.parametrize("folder", ["7.Rooms", "UPPER_case", "-"])
def test_any_folder_has_a_name_in_kubernetes(make_artifact: Make, folder: str) -> None:
    if folder == "-":
        with pytest.raises(SpecError, match="cannot be a model's name"):
            manifests([make_artifact(folder)], CLUSTER)
        return
    name = read(manifests([make_artifact(folder)], CLUSTER))["emadeploy.yaml"]["metadata"]["name"]
    assert name == {"7.Rooms": "m-7-rooms", "UPPER_case": "upper-case"}[folder]


def test_what_makes_no_manifest_is_refused(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    with pytest.raises(ArtifactError, match="nowhere does not exist"):
        manifests([tmp_path / "nowhere"], CLUSTER)
    with pytest.raises(SpecError, match="two artifacts"):
        manifests([artifact, artifact], CLUSTER)
    for storage in ("models", "ftp://x", "pvc://", "s3://a b"):
        with pytest.raises(SpecError, match="is no URI of pvc, s3"):
            Cluster("emadeploy:1", storage)
    for image in ("", "a b", "Emadeploy"):
        with pytest.raises(SpecError, match="is no name of an image"):
            Cluster(image, "pvc://models")


def test_yaml_is_read_as_it_was_written() -> None:
    value = {
        "a": {"b": [{"c": 1, "d": ["x: y", {"e": None}]}, []], "f": {}},
        "g": True,
        "h": "# no: comment\n",
        "i": 1.5,
    }
    assert yaml.safe_load(to_yaml(value)) == value
