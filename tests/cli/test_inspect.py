"""`emadeploy inspect`: what it shows, and that a harmed file is not passed over."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.cli import app
from emadeploy.contract.manifest import Manifest


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command in this process: status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["emadeploy", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app.main()
        return end.value.code or 0, *capsys.readouterr()

    return call


def test_everything_is_shown(inspect: Callable[..., tuple[int, str, str]], make_artifact: Callable[..., Path]) -> None:
    status, text, errors = inspect(
        make_artifact(
            parity={"semseg": {"agreement": 99.98765}},
            source={"untrained": True, "checkpoint": "runs/best"},
            graph={"rewrites": ["batch norms folded", "pixel shuffles"], "ctal": "basis"},
        )
    )
    assert (status, errors) == (0, "")
    for shown in (
        "tiny for onnxruntime-fp32",
        "CTAL basis",
        "untrained: random weights",
        "frames of any size, resized to 64 x 96 (height x width)",
        "farther_is_larger",
        "toward_camera",
        "camera_optical",
        "1 x 13 x 32 x 48",
        "classes of semseg, from 0: bed, books, ceiling",
        "semseg.agreement",
        "99.9877",
        "batch norms folded, pixel shuffles",
        "runs/best",
        "not measured",
    ):
        assert shown in text, shown


def test_a_graph_that_takes_frames_says_which(
    inspect: Callable[..., tuple[int, str, str]], make_artifact: Callable[..., Path]
) -> None:
    _, text, _ = inspect(make_artifact(frame_size=(48, 80)))
    assert "takes uint8 frames of 48 x 80 alone" in text
    assert "untrained: random" not in text


def test_the_audit_is_a_table(inspect: Callable[..., tuple[int, str, str]], make_artifact: Callable[..., Path]) -> None:
    shares = {"layers": {"int8": 0.75, "bf16": 0.25}, "time": {"int8": 0.9, "bf16": 0.1}}
    shares |= {"compute": {"int8": 7, "bf16": 2}, "microseconds": 12345}
    audit = {
        "engine": "openvino 2026",
        "machine": "a CPU",
        "branches": {"ctal": shares, "other": shares},
        "total": shares,
    }
    artifact = make_artifact(target="onnxruntime-int8", asked={"ctal": "bf16"}, audit=audit)
    _, text, _ = inspect(artifact)
    lines = [line.split() for line in text.splitlines()]
    found = [
        "7",
        "int8,",
        "2",
        "bf16",
        "int8",
        "75",
        "%,",
        "bf16",
        "25",
        "%",
        "int8",
        "90",
        "%,",
        "bf16",
        "10",
        "%",
        "12.3",
    ]
    assert ["ctal", "bf16", *found] in lines
    assert ["total", *found] in lines
    assert "audit" not in inspect(make_artifact("plain"))[1]


def test_json_holds_the_whole_manifest(
    inspect: Callable[..., tuple[int, str, str]], make_artifact: Callable[..., Path]
) -> None:
    artifact = make_artifact()
    status, text, _ = inspect(artifact, "--json")
    record = json.loads(text)
    assert status == 0
    assert record["problems"] == {"model.onnx": None}
    assert (record["schema"], record["engine"], record["untrained"]) == (1, "onnxruntime", False)
    assert Manifest.from_json(json.dumps({"schema": 1, **record["manifest"]})) == Manifest.read(artifact)


def test_a_harmed_file_is_shown_and_the_status_is_1(
    emadeploy_command: list[str], make_artifact: Callable[..., Path]
) -> None:
    artifact = make_artifact()
    (artifact / "model.onnx").write_bytes(b"short")
    argv = [*emadeploy_command, "inspect", str(artifact)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "truncated" in done.stdout
    assert done.stderr.startswith("emadeploy: ArtifactError: ")
    assert "model.onnx has 5 bytes" in done.stderr


def test_what_is_no_artifact_is_refused(inspect: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, text, errors = inspect(tmp_path)
    assert (status, text) == (1, "")
    assert "has no manifest.json; an artifact is a folder made by `emadeploy export`" in errors
