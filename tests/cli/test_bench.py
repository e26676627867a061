"""`emadeploy bench` as people call it: in a process of its own, with engines that take milliseconds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.contract.tasks import NYUV2_13

QUICK = ["--percentile", "50", "--min-time", "0.05", "--warmup", "1", "--threads", "1"]
Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bench(emadeploy_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a function that runs the command in a folder of its own, with a cache of its own."""
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [*emadeploy_command, "bench", *map(str, arguments)]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return run


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def test_two_artifacts_side_by_side(bench: Bench, make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    one, two = make_artifact("one"), make_artifact("two")
    done = bench(one, two, *QUICK, "--against", "two", "--json", tmp_path / "b.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "one" in done.stdout
    assert f"written: {tmp_path / 'b.json'}" in done.stdout
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["schema"] == 1
    assert report["settings"]["percentile"] == 50
    assert report["machine"]["versions"]["onnxruntime"]
    rows = rows_of(tmp_path / "b.json")
    assert list(rows) == ["one", "two"]
    for row in rows.values():
        assert (row["status"], row["target"], row["estimate"]) == ("ok", "onnxruntime-fp32", False)
        assert row["latency_ms"]["n"] >= 11
        assert row["latency_ms"]["p50_ci"][0] <= row["latency_ms"]["p50"] <= row["latency_ms"]["p50_ci"][1]
        assert sum(row["samples_ms"]["total"]) >= 50
        assert (row["mode"]["threads"], row["mode"]["device"]) == (1, "cpu")
        assert row["mode"]["frame"] == [64, 96]
        assert row["stream_fps"] > 0
        assert row["peak_memory_mb"] > row["baseline_memory_mb"]
        assert set(row["conditions"]) == {"before", "after"}
        assert row["against"] == "two"
    low, high = rows["one"]["speedup_end_to_end_ci"]
    assert low <= rows["one"]["speedup_end_to_end"] <= high
    assert rows["two"]["speedup"] == 1


def test_the_accuracy_is_that_of_eval(
    bench: Bench, emadeploy_command: list[str], make_artifact: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    artifact = make_artifact()
    done = bench(artifact, *QUICK, "--data", data, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    argv = [*emadeploy_command, "eval", str(artifact), "--data", data, "--json", str(tmp_path / "e.json")]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    judged, row = json.loads((tmp_path / "e.json").read_text()), rows_of(tmp_path / "b.json")["artifact"]
    assert row["tasks"] == judged["tasks"] != {}
    assert row["data"] == f"{judged['data']} (2 frames)"
    assert row["mode"]["frame"] == [32, 64]  # those of the data


def test_what_fails_is_a_row_and_the_others_go_on(
    bench: Bench, make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    altered, good, poisoned = make_artifact("altered"), make_artifact("good"), make_artifact("p", poison=float("nan"))
    with (altered / "model.onnx").open("ab") as file:
        file.write(b" ")
    gone = tmp_path / "gone"
    done = bench(gone, altered, good, poisoned, *QUICK, "--json", tmp_path / "b.json")
    assert done.returncode == 1
    assert done.stderr == ""
    rows = rows_of(tmp_path / "b.json")
    assert rows["gone"]["status"].startswith(f"failed: ArtifactError: {gone} does not exist")
    assert "model.onnx has" in rows["altered"]["status"]
    assert "ArtifactError" in rows["p"]["status"]
    assert (rows["good"]["status"], rows["good"]["incomparable"]) == ("ok", "gone was not measured")
    assert rows["good"]["latency_ms"]["p50"] > 0
    assert "does not exist" in done.stdout


def _children(parent: int) -> list[tuple[int, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (OSError, IndexError):
            continue
        if above == parent and "emadeploy.bench.child" in words:
            found.append((int(path.name), words[3]))
    return found


def _started(command: list[str], folder: Path, *arguments: object) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Start a bench of two artifacts; return it with the processes of both, when both are there."""
    argv = [*command, "bench", *map(str, arguments)]
    running = subprocess.Popen(
        argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(children := _children(running.pid)) < 2:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return running, {Path(artifact).name: process for process, artifact in children}


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@needs_proc
def test_a_killed_engine_is_a_row_and_the_other_goes_on(
    bench: Bench, emadeploy_command: list[str], make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    options = ["--percentile", "50", "--min-time", "2", "--json", tmp_path / "b.json"]
    running, processes = _started(
        emadeploy_command, tmp_path, make_artifact("lives"), make_artifact("killed"), *options
    )
    os.kill(processes["killed"], signal.SIGKILL)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (1, "")
    rows = rows_of(tmp_path / "b.json")
    assert rows["killed"]["status"].startswith("failed: its process was killed (SIGKILL)")
    assert rows["lives"]["status"] == "ok"
    assert "was killed" in out


@needs_proc
def test_ctrl_c_leaves_nothing_behind(
    emadeploy_command: list[str], make_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    options = ["--percentile", "50", "--min-time", "60", "--json", tmp_path / "b.json"]
    running, processes = _started(emadeploy_command, tmp_path, make_artifact("one"), make_artifact("two"), *options)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "emadeploy: interrupted\n")
    assert not any(Path(f"/proc/{process}").exists() for process in processes.values())
    assert list(temporary.glob("emadeploy-*")) == []
    assert not (tmp_path / "b.json").exists()


def test_sizes_that_differ_are_not_compared(bench: Bench, make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    small, large = make_artifact("small"), make_artifact("large", frame_size=(96, 160))
    done = bench(small, large, *QUICK, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    row = rows_of(tmp_path / "b.json")["large"]
    assert (row["status"], row["speedup"], row["incomparable"]) == ("ok", None, "frame 96x160 against 64x96")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--percentile", "95"], "SpecError: --percentile 95 is unknown; known: 50, 90, 99"),
        (["--torch", "fast"], "SpecError: --torch 'fast' is unknown; known: eager, compile"),
        (["--device", "tpu"], "SpecError: --device 'tpu' is unknown; known: auto, cpu, gpu, jetson, gpu:N"),
        (["--against", "three", *QUICK], "SpecError: --against 'three' is no row; the rows are artifact"),
        (["--json", "no/such/b.json"], "DataError: no/such is not a folder; --json needs one that exists"),
        (["--html", "no/such/b.html"], "DataError: no/such is not a folder; --html needs one that exists"),
        (["--compare", "a", "b"], "SpecError: --compare measures nothing: of the other options it goes with --json"),
        (["--device", "jetson-agx-xavier", "--layers"], "--layers cannot be had: leave that out"),
        (["--published"], "made from no network that is known here"),
    ],
)
def test_refusals(bench: Bench, make_artifact: Callable[..., Path], arguments: list[str], message: str) -> None:
    done = bench(make_artifact(), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_artifact_twice_is_refused(bench: Bench, make_artifact: Callable[..., Path]) -> None:
    artifact = make_artifact()
    done = bench(artifact, artifact)
    assert done.returncode == 1
    assert "an artifact is given twice" in done.stderr


def test_artifacts_of_one_name_are_called_by_their_paths(
    bench: Bench, make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    one = make_artifact("same").rename(tmp_path / "other" / "same")
    two = make_artifact("same")
    assert bench(one, two, *QUICK, "--json", tmp_path / "b.json").returncode == 0
    assert list(rows_of(tmp_path / "b.json")) == [str(one), str(two)]


def test_no_gpu_is_an_error(bench: Bench, make_artifact: Callable[..., Path]) -> None:
    from emadeploy.cli.bench_parts.devices import check_device
    from emadeploy.contract.errors import DeviceError

    try:
        check_device("gpu")
    except DeviceError:
        done = bench(make_artifact(), "--device", "gpu")
        assert done.returncode == 1
        assert done.stderr.startswith("emadeploy: DeviceError: --device gpu: ")
    else:
        pytest.skip("there is a GPU here")


def test_pytorch_can_be_a_row(bench: Bench, make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tasks = (TaskSpec("semseg", class_names=NYUV2_13), TaskSpec("depth"), TaskSpec("normals"))
    spec = ModelSpec("tiny", "emanet", tasks, InputSpec(64, 96))
    artifact = make_artifact(model=spec, source={"model": "hps-nyuv2", "untrained": True, "seed": 0})
    done = bench(artifact, *QUICK, "--torch", "eager", "--json", tmp_path / "b.json")
    assert (done.returncode, done.stderr) == (0, "")
    row = rows_of(tmp_path / "b.json")["torch-eager"]
    assert (row["target"], row["engine"]["engine"], row["mode"]["device"]) == ("torch-eager", "torch-eager", "cpu")
    assert row["speedup"] is not None or row["incomparable"]
    assert list(row["stages_ms"]) == ["preprocess", "inference", "decode"]
    assert (row["artifact"], row["size_mb"], row["precision"]) == (None, None, {})


def test_the_child_of_pytorch_tells_its_errors(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import numpy as np

    np.save(tmp_path / "frame.npy", np.zeros((32, 64, 3), np.uint8))
    artifact = make_artifact()
    argv = [sys.executable, "-m", "emadeploy.cli.bench_parts.torch_child", "eager", artifact, "no-such-model"]
    argv += [tmp_path / "frame.npy", "1", "auto"]
    done = subprocess.run(list(map(str, argv)), input="", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "SpecError: 'no-such-model' is neither a folder nor a model" in json.loads(done.stdout)["error"]
