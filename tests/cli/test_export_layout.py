"""`emadeploy export --layout triton` and `emadeploy serve --kserve`: what goes to servers of other people."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from emadeploy.cli.app import app
from emadeploy.cli.exporting import make
from emadeploy.cli.exporting.order import Order
from emadeploy.contract.errors import BuildError, SpecError

Make = Callable[..., Path]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_artifact_is_laid_out(make_artifact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", make_artifact(), "--layout", "triton", "--instances", "2")
    assert done.exit_code == 0, done.exception
    assert "dynamic_batching" not in (tmp_path / "model_repository/tiny/config.pbtxt").read_text()
    assert done.output == f"wrote tiny: tritonserver --model-repository={tmp_path / 'model_repository'}\n"
    assert "count: 2" in (tmp_path / "model_repository/tiny/config.pbtxt").read_text()
    assert run("export", "artifact", "--layout", "triton", "-o", "other").exit_code == 0
    assert (tmp_path / "other/tiny/1/model.onnx").is_file()


def test_what_is_exported_is_laid_out_and_nothing_else_stays(
    make_artifact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact()
    ordered: list[tuple[str | None, Order]] = []

    def make_it(source: str | None, order: Order) -> Path:
        ordered.append((source, order))
        assert order.output is not None
        return Path(shutil.copytree(artifact, order.output))

    monkeypatch.setattr(make, "make_artifact", make_it)
    done = run("export", "emanet-rooms", "--layout", "triton", "-o", tmp_path / "models", "--target", "ort-int8")
    assert done.exit_code == 0, done.exception
    assert [(source, order.target) for source, order in ordered] == [("emanet-rooms", "ort-int8")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "models"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--layout", "zip"], SpecError, "--layout 'zip' is unknown; known: artifact, triton"),
        (
            ["--instances", "2", "--max-batch", "4"],
            SpecError,
            "--instances 2, --max-batch 4: for --layout triton alone",
        ),
        (
            ["--layout", "triton", "--target", "openvino-int8", "--max-batch", "4"],
            BuildError,
            "engines of 'openvino' are compiled for one frame",
        ),
        (["--layout", "triton", "--target", "trt-int8"], BuildError, "`emadeploy build ARTIFACT` on that machine"),
        (["--layout", "triton", "--target", "trt-rtx-int8"], BuildError, "Triton has no backend for engine"),
        (["ARTIFACT", "--layout", "triton", "--target", "ort-fp32"], SpecError, "--target: {} is an artifact"),
        (
            ["ARTIFACT", "--layout", "triton", "--untrained", "--tasks", "depth"],
            SpecError,
            "--tasks, --untrained: {} is",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    make_artifact: Make, arguments: list[str], error: type[Exception], says: str
) -> None:
    artifact = str(make_artifact())
    done = run("export", *(artifact if argument == "ARTIFACT" else argument for argument in arguments))
    assert isinstance(done.exception, error)
    assert says.format(artifact) in str(done.exception)


def test_an_artifact_is_laid_out_for_batches(make_artifact: Make, tmp_path: Path) -> None:
    done = run("export", make_artifact(), "--layout", "triton", "--max-batch", "4", "-o", tmp_path / "models")
    assert done.exit_code == 0, done.exception
    text = (tmp_path / "models/tiny/config.pbtxt").read_text()
    assert "max_batch_size: 4" in text
    assert "dynamic_batching {" in text


@pytest.mark.parametrize("flag", ["--instances", "--max-batch"])
@pytest.mark.parametrize("number", ["0", "-1", "1.5"])
def test_no_instances_and_no_frames_are_no_usage(make_artifact: Make, tmp_path: Path, flag: str, number: str) -> None:
    done = run("export", make_artifact(), "--layout", "triton", flag, number, "-o", tmp_path / "models")
    assert done.exit_code == 2
    assert not (tmp_path / "models").exists()


def test_manifests_are_written_or_printed(make_artifact: Make, tmp_path: Path) -> None:
    artifact, folder = make_artifact(), tmp_path / "k" / "s"
    done = run("serve", artifact, "--kserve", folder, "--image", "me/emadeploy:1", "--storage", "s3://bucket/models")
    assert done.exit_code == 0, done.exception
    assert done.output == f"wrote {folder / 'emadeploy.yaml'}\nwrote {folder / 'triton.yaml'}\n"
    texts = [(folder / name).read_text() for name in ("emadeploy.yaml", "triton.yaml")]
    assert all('"s3://bucket/models"' in text for text in texts)
    assert '"me/emadeploy:1"' in texts[0]
    printed = run("serve", artifact, "--kserve", "-", "--image", "me/emadeploy:1", "--storage", "s3://bucket/models")
    assert printed.output == "---\n".join(texts)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--storage", "pvc://x"], "--storage: it goes with --kserve"),
        (["--image", "x"], "--image: it goes with --kserve"),
        (["--kserve", "-", "--port", "9"], "--port: the manifests of --kserve say it themselves"),
        (["--kserve", "-", "--host", "0.0.0.0"], "--host: the manifests of --kserve say it themselves"),
        (["--kserve", "-", "--timeout", "inf"], "a timeout of inf s is no time"),
        (["--kserve", "-", "--storage", "models"], "--storage 'models' is no URI of pvc"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(make_artifact: Make, arguments: list[str], says: str) -> None:
    done = run("serve", make_artifact(), *arguments)
    assert isinstance(done.exception, SpecError)
    assert says in str(done.exception)
