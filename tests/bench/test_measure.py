"""Artifacts side by side: the protocol of the measured processes, with real engines, and what `demo` needs of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy.bench.child import peak_memory_mb
from emadeploy.bench.measure import measure
from emadeploy.contract.errors import ArtifactError, SpecError

sys.path.insert(0, str(Path(__file__).parent))
from fake_engine import fake_engine

FRAME = np.zeros((48, 80, 3), np.uint8)


def test_an_artifact_is_measured_in_a_process_of_its_own(make_artifact: Callable[..., Path]) -> None:
    steps: list[tuple[int, int]] = []
    one, two = measure(
        {"one": make_artifact("a"), "two": make_artifact("b", frame_size=(48, 80))},
        FRAME,
        threads=1,
        rounds=3,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(n, 8) for n in (1, 2, 4, 6, 8)]
    for row in (one, two):
        assert row.status == "ok"
        assert (row.target, row.threads, row.estimate) == ("onnxruntime-fp32", 1, False)
        assert row.latency_ms["n"] == row.end_to_end_ms["n"] == 3
        assert row.latency_ms["p50"] > 0
        assert row.end_to_end_ms["p50"] > row.latency_ms["p50"]
        assert list(row.stages_ms) == ["preprocess", "inference", "decode"]
        assert row.fps == pytest.approx(1e3 / row.end_to_end_ms["p50"])
        assert 0 < row.baseline_memory_mb < row.peak_memory_mb < 1000
        assert row.cold_start_s > row.load_s > 0
        assert row.size_mb > 0
        assert row.engine["engine"] == "onnxruntime"
        assert row.engine["threads"] == 1
        assert len(row.samples_ms["total"]) == 3
    assert (one.speedup, one.speedup_end_to_end, one.against) == (1, 1, "one")
    assert two.speedup > 0


def test_the_record_has_the_keys_that_other_programs_read(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    (row,) = measure({"one": make_artifact()}, FRAME, rounds=2, child=fake_engine(tmp_path))
    record = json.loads(json.dumps(row.to_dict()))
    wanted = (
        "name target status latency_ms end_to_end_ms stages_ms fps peak_memory_mb size_mb cold_start_s energy_j "
        "estimate tasks"
    )
    assert set(wanted.split()) <= set(record)
    assert {key: record["latency_ms"][key] for key in ("p50", "p90", "p99", "n")} == {
        "p50": 8.0,
        "p90": None,  # two calls do not tell
        "p99": None,
        "n": 2,
    }
    assert record["stages_ms"] == {"preprocess": 1.0, "inference": 8.0, "decode": 1.0}
    assert (record["fps"], record["peak_memory_mb"], record["baseline_memory_mb"]) == (100.0, 50.0, 20.0)
    assert record["mode"] == {
        "image_size": [64, 96],
        "frame": [48, 80],
        "tasks": ["semseg", "depth", "normals"],
        "untrained": False,
        "device": "cpu",
        "threads": row.threads,
    }


def test_an_altered_artifact_is_the_status_of_its_row(make_artifact: Callable[..., Path]) -> None:
    artifact = make_artifact()
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b" ")
    (row,) = measure({"a": artifact}, FRAME, rounds=1)
    assert row.status.startswith("failed: ArtifactError: ")
    assert "model.onnx" in row.status


def test_what_makes_no_sense_is_refused(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    artifact = make_artifact()
    with pytest.raises(SpecError, match="0 rounds"):
        measure({"a": artifact}, FRAME, rounds=0)
    with pytest.raises(SpecError, match="threads 0"):
        measure({"a": artifact}, FRAME, threads=0)
    with pytest.raises(ArtifactError, match="does not exist"):
        measure({"a": tmp_path / "nowhere"}, FRAME)


def _talk(artifact: Path, frame: Path, said: str, *program: str) -> list[dict]:
    argv = [sys.executable, *(program or ("-m", "emadeploy.bench.child")), str(artifact), str(frame), "1", "auto"]
    done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()] + [{"rc": done.returncode, "stderr": done.stderr}]


def test_the_words_of_the_protocol(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    np.save(tmp_path / "frame.npy", FRAME)
    ready, calls, stream, memory, wrong, end = _talk(
        make_artifact(), tmp_path / "frame.npy", "run 3\nstream 0.01\nmemory\njump\n"
    )
    assert ready["ready"]["engine"] == "onnxruntime"
    assert [set(call) for call in calls["calls"]] == [{"preprocess", "inference", "decode", "total"}] * 3
    assert all(call["total"] >= call["inference"] for call in calls["calls"])
    assert stream["frames"] >= 8
    assert stream["fps"] > 0
    assert memory["peak_memory_mb"] > ready["baseline_memory_mb"]
    assert memory["device_memory_mb"] is None
    assert wrong == {"error": "'jump' is not a word of the protocol"}
    assert end["rc"] == 0


def test_a_device_that_the_engine_has_not_is_told(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    np.save(tmp_path / "frame.npy", FRAME)
    argv = [sys.executable, "-m", "emadeploy.bench.child", str(make_artifact()), str(tmp_path / "frame.npy"), "1"]
    done = subprocess.run([*argv, "gpu"], input="", capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["error"].startswith("DeviceError: device 'gpu': engine 'onnxruntime' runs on cpu")
    assert done.returncode == 1


def test_what_an_engine_prints_does_not_disturb_the_protocol(make_artifact: Callable[..., Path], tmp_path) -> None:
    np.save(tmp_path / "frame.npy", FRAME)
    noisy = (
        "import os, runpy, sys; from emadeploy.runtime import Runtime; call = Runtime.__call__\n"
        "def loud(self, *a, **k):\n    os.write(1, b'noise'); print('noise'); return call(self, *a, **k)\n"
        "Runtime.__call__ = loud\n"
        "runpy.run_module('emadeploy.bench.child', run_name='__main__', alter_sys=False)"
    )
    *answers, end = _talk(make_artifact(), tmp_path / "frame.npy", "run 1\nmemory\n", "-c", noisy)
    assert len(answers) == 3
    assert "noise" in end["stderr"]


def test_peak_memory_is_of_this_process() -> None:
    before = peak_memory_mb()
    block = np.ones(30_000_000)
    assert peak_memory_mb() >= before
    assert peak_memory_mb() > block.nbytes / 1e6
