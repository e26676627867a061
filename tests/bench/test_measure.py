"""Measuring: the protocol of the measured processes, the rows, and what becomes of a process that fails."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy.bench import measure as measure_module
from emadeploy.bench.child import peak_memory_mb
from emadeploy.bench.measure import measure
from emadeploy.bench.rows import Row
from emadeploy.bench.stats import medians, paired_speedup, spread
from emadeploy.contract.errors import ArtifactError, SpecError

FRAME = np.zeros((48, 80, 3), np.uint8)
#: A process that speaks the protocol without an engine; its calls take 8 ms and 10 ms, or twice that for 'slow'.
SPEAKS = """
import json, sys
slow = 2 if "slow" in sys.argv[1] else 1
def say(**message): print(json.dumps(message), flush=True)
say(ready={"engine": "none"}, baseline_memory_mb=20.0)
for line in sys.stdin:
    if line == "memory\\n":
        say(peak_memory_mb=50.0)
    else:
        say(preprocess=1.0, inference=8.0 * slow, decode=1.0, total=10.0 * slow)
"""
#: The same, which does as it is told when its artifact's name asks for it.
FAILS = SPEAKS.replace(
    "for line",
    """
import os, signal
if "dies" in sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)
if "exits" in sys.argv[1]: sys.exit("a library is missing")
if "babbles" in sys.argv[1]: print("Hello", flush=True)
if "refuses" in sys.argv[1]: say(error="ArtifactError: altered"); sys.exit(1)
for line""",
)


@pytest.fixture
def child(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that makes a program of a text, and returns its argv."""

    def make(text: str) -> list[str]:
        path = tmp_path / "child.py"
        path.write_text(text)
        return [sys.executable, str(path)]

    return make


def test_an_artifact_is_measured_in_a_process_of_its_own(make_artifact: Callable[..., Path]) -> None:
    steps: list[tuple[int, int]] = []
    one, two = measure(
        {"one": make_artifact("a"), "two": make_artifact("b", frame_size=(48, 80))},
        FRAME,
        threads=1,
        rounds=3,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(n, 10) for n in range(1, 11)]
    for row in (one, two):
        assert row.status == "ok"
        assert (row.target, row.threads, row.estimate) == ("onnxruntime-fp32", 1, False)
        assert row.latency_ms["n"] == row.end_to_end_ms["n"] == 3
        assert 0 < row.latency_ms["p50"] <= row.latency_ms["p90"] <= row.latency_ms["p99"]
        assert row.end_to_end_ms["p50"] > row.latency_ms["p50"]
        assert list(row.stages_ms) == ["preprocess", "inference", "decode"]
        assert row.fps == pytest.approx(1e3 / row.end_to_end_ms["p50"])
        assert 0 < row.baseline_memory_mb < row.peak_memory_mb < 1000
        assert row.cold_start_s > 0
        assert row.size_mb > 0
        assert row.engine["engine"] == "onnxruntime"
        assert row.engine["threads"] == 1
    assert (one.speedup, one.speedup_end_to_end) == (1, 1)
    assert two.speedup > 0


def test_the_record_has_the_keys_that_other_programs_read(make_artifact: Callable[..., Path], child) -> None:
    (row,) = measure({"one": make_artifact()}, FRAME, rounds=2, child=child(SPEAKS))
    record = row.to_dict()
    wanted = (
        "name target status latency_ms end_to_end_ms stages_ms fps peak_memory_mb size_mb cold_start_s estimate tasks"
    )
    assert set(wanted.split()) <= set(record)
    assert record["latency_ms"] == {"p50": 8.0, "p90": 8.0, "p99": 8.0, "n": 2}
    assert record["stages_ms"] == {"preprocess": 1.0, "inference": 8.0, "decode": 1.0}
    assert (record["fps"], record["peak_memory_mb"], record["baseline_memory_mb"]) == (100.0, 50.0, 20.0)


def test_the_two_take_turns_back_and_forth(make_artifact: Callable[..., Path], child, monkeypatch) -> None:
    asked: list[str] = []
    ask = measure_module.Child.ask

    def listen(self, word):
        asked.append(Path(self._argv[-3]).name)
        return ask(self, word)

    monkeypatch.setattr(measure_module.Child, "ask", listen)
    artifacts = {"a": make_artifact("slow"), "b": make_artifact("fast")}
    slow, fast = measure(artifacts, FRAME, rounds=2, child=child(SPEAKS))
    assert asked[:8] == ["slow", "fast", "fast", "slow"] * 2
    assert (slow.speedup, fast.speedup, fast.speedup_end_to_end) == (1, 2, 2)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("dies", r"failed: its process was killed \(SIGKILL\), as the kernel does where memory runs out"),
        ("exits", r"failed: its process exited with status 1: a library is missing"),
        ("babbles", r"failed: its process answered b'Hello'"),
        ("refuses", r"failed: ArtifactError: altered"),
    ],
)
def test_a_process_that_fails_is_reported_and_the_others_go_on(
    make_artifact: Callable[..., Path], child, name: str, status: str
) -> None:
    artifacts = {"bad": make_artifact(name), "good": make_artifact("good")}
    bad, good = measure(artifacts, FRAME, rounds=2, child=child(FAILS))
    assert not bad.measured
    assert re.fullmatch(status, bad.status)
    assert (bad.latency_ms, bad.peak_memory_mb, bad.speedup) == (None, None, None)
    assert bad.size_mb > 0
    assert good.measured
    assert good.speedup is None  # there is nothing to compare with


def test_a_process_killed_at_work_is_reported(make_artifact: Callable[..., Path], child) -> None:
    text = SPEAKS.replace("else:", "elif 'slow' in sys.argv[1]:\n        import os; os.kill(os.getpid(), 9)\n    else:")
    good, bad = measure(
        {"good": make_artifact("good"), "bad": make_artifact("slow")}, FRAME, rounds=2, child=child(text)
    )
    assert (good.status, good.speedup) == ("ok", 1)
    assert "was killed (SIGKILL)" in bad.status


def test_a_process_that_hangs_is_given_up(make_artifact: Callable[..., Path], child, monkeypatch) -> None:
    monkeypatch.setattr(measure_module, "_PATIENCE", 0.5)
    (row,) = measure({"a": make_artifact()}, FRAME, rounds=1, child=child("import time; time.sleep(60)"))
    assert row.status == "failed: no answer within 0 s"


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


def test_what_an_engine_prints_does_not_disturb_the_protocol(make_artifact: Callable[..., Path], tmp_path) -> None:
    np.save(tmp_path / "frame.npy", FRAME)
    noisy = (
        "import os, runpy, sys; from emadeploy.runtime import Runtime; call = Runtime.__call__\n"
        "def loud(self, *a, **k):\n    os.write(1, b'noise'); print('noise'); return call(self, *a, **k)\n"
        "Runtime.__call__ = loud\n"
        "runpy.run_module('emadeploy.bench.child', run_name='__main__', alter_sys=False)"
    )
    argv = [sys.executable, "-c", noisy, str(make_artifact()), str(tmp_path / "frame.npy"), "1"]
    done = subprocess.run(argv, input="run\nmemory\n", capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert "noise" not in done.stdout
    assert "noise" in done.stderr


def test_peak_memory_is_of_this_process() -> None:
    before = peak_memory_mb()
    block = np.ones(30_000_000)
    assert peak_memory_mb() >= before
    assert peak_memory_mb() > block.nbytes / 1e6


def test_numbers() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"p50": 2.0, "p90": pytest.approx(2.8), "p99": pytest.approx(2.98), "n": 3}
    assert medians([{"a": 1.0}, {"a": 5.0}, {"a": 2.0}]) == {"a": 2.0}
    # A machine that slows down tenfold in the second round: the ratio stays.
    assert paired_speedup([4.0, 40.0, 4.0], [1.0, 10.0, 1.0]) == 4
    assert not Row("a", "onnxruntime-fp32", "failed: x", 1.0, 1).measured
