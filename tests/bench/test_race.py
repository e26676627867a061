"""Engines in turns: rounds, warm-up, ratios, and what becomes of a process that fails."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from emadeploy.bench import process as process_module
from emadeploy.bench.entrants import Entrant, broken, entrant
from emadeploy.bench.jetson.power import PowerRecord
from emadeploy.bench.process import Child
from emadeploy.bench.race import Effort, race
from emadeploy.bench.rows import Row
from emadeploy.contract.errors import ArtifactError, SpecError

sys.path.insert(0, str(Path(__file__).parent))
from fake_engine import fake_engine

FRAME = np.zeros((48, 80, 3), np.uint8)
Enter = Callable[..., list[Entrant]]


@pytest.fixture
def enter(make_artifact: Callable[..., Path], tmp_path: Path) -> Enter:
    """Return a function that makes fake engines by name; a name may be given with its frame."""

    def make(*names: str | tuple[str, np.ndarray]) -> list[Entrant]:
        child, found = fake_engine(tmp_path), []
        for given in names:
            name, frame = given if isinstance(given, tuple) else (given, FRAME)
            found.append(entrant(name, make_artifact(name), frame, threads=1, child=child))
        return found

    return make


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, str]]:
    """Return a list that fills with (artifact, line) of everything that processes are asked."""
    heard: list[tuple[str, str]] = []
    ask = Child.ask

    def listen(self, line):
        heard.append((Path(self._argv[-4]).name, line))
        return ask(self, line)

    monkeypatch.setattr(Child, "ask", listen)
    return heard


def race_of(enter: Enter, *names: str, effort: Effort | None = None, **options) -> list[Row]:
    return race(enter(*names), effort or Effort(rounds=2), **options)


def test_the_two_take_turns_back_and_forth(enter: Enter, asked) -> None:
    slow, fast = race_of(enter, "slow", "fast")
    turns = [(name, line) for name, line in asked if line == "run 1"]
    assert [name for name, _ in turns] == ["slow", "fast", "fast", "slow"]
    assert (slow.speedup, fast.speedup, fast.speedup_end_to_end) == (1, 2, 2)
    assert fast.speedup_ci is None  # of two rounds
    assert slow.warm_up == {"calls": 2, "seconds": slow.warm_up["seconds"], "steady": None, "ms": 20.0}


def test_calls_follow_each_other_and_the_first_of_a_turn_does_not_count(enter: Enter, asked) -> None:
    effort = Effort(rounds=4, percentile=90, warm_up=0, stream_s=0.1)
    # Without a warm-up nothing is known of its speed, so turns are of one call.
    (row,) = race_of(enter, "fast", effort=effort)
    assert row.latency_ms["n"] == 64
    assert row.latency_ms["p90"] == 8.0
    assert row.latency_ms["p99"] is None
    asked.clear()
    (row,) = race_of(enter, "quick", effort=Effort(rounds=4, percentile=90, warm_up=3, stream_s=0.1))
    # 64 calls in 4 rounds are 16 each; the first, ten times as slow, settles the caches and is left out.
    assert [line for _, line in asked] == ["run 3", *["run 17"] * 4, "memory", "stream 0.1"]
    assert row.end_to_end_ms["n"] == 64
    assert row.end_to_end_ms["p50"] == row.end_to_end_ms["p90"] == 10.0
    assert row.stream_fps == 200.0


def test_rounds_go_on_until_the_seconds_are_full(enter: Enter) -> None:
    fast, slow = race_of(enter, "fast", "slow", effort=Effort(rounds=2, percentile=50, min_time_s=0.5, warm_up=3))
    for row in (fast, slow):
        assert sum(row.samples_ms["total"]) >= 500


def test_rounds_go_on_until_the_ratio_is_sure(enter: Enter) -> None:
    _, fast = race_of(enter, "slow", "fast", effort=Effort(rounds=2, within=0.01))
    assert fast.latency_ms["n"] == 6  # the fewest rounds of which a median has an interval
    assert fast.speedup_ci == (2, 2)
    _, fast = race_of(enter, "slower", "faster", effort=Effort(rounds=2, within=0.01, most_s=0.0))
    assert fast.latency_ms["n"] == 2


def test_ratios_are_to_the_row_that_is_named(enter: Enter) -> None:
    slow, fast = race_of(enter, "slow", "fast", against="fast")
    assert (slow.speedup, fast.speedup, slow.against) == (0.5, 1, "fast")
    with pytest.raises(SpecError, match="--against 'x' is no row; the rows are slow2, fast2"):
        race_of(enter, "slow2", "fast2", against="x")


def test_unlike_modes_are_never_compared(enter: Enter) -> None:
    small, large = race_of(enter, "small", ("large", np.zeros((96, 160, 3), np.uint8)))
    assert small.speedup == 1
    assert (large.speedup, large.speedup_end_to_end) == (None, None)
    assert large.incomparable == "frame 96x160 against 48x80"
    assert large.measured


def test_drifting_times_are_flagged(enter: Enter) -> None:
    steady, drifting = race_of(enter, "holds", "drifts", effort=Effort(rounds=12))
    assert "successive fifths" not in (steady.unstable or "")
    assert re.search(r"the medians of successive fifths of its calls are \d+ % apart", drifting.unstable)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("dies", r"failed: its process was killed \(SIGKILL\), as the kernel does where memory runs out"),
        ("exits", r"failed: its process exited with status 1: a library is missing"),
        ("babbles", r"failed: its process answered b'Hello'"),
        ("lists", r"failed: its process answered b'\[1\]'"),
        ("refuses", r"failed: ArtifactError: altered"),
        ("forgets", r"failed: its process did not answer 2 calls"),
        ("vanishes", r"failed: DeviceError: the GPU is gone"),
        ("killed", r"failed: its process was killed \(SIGKILL\), as the kernel does where memory runs out"),
    ],
)
def test_a_process_that_fails_is_reported_and_the_others_go_on(enter: Enter, name: str, status: str) -> None:
    bad, good = race_of(enter, name, "good", effort=Effort(rounds=6))
    assert not bad.measured
    assert re.fullmatch(status, bad.status)
    assert (bad.latency_ms, bad.peak_memory_mb, bad.speedup) == (None, None, None)
    assert bad.size_mb > 0
    assert good.measured
    assert good.latency_ms["n"] == 6
    assert (good.speedup, good.incomparable) == (None, f"{name} was not measured")


def test_a_process_that_hangs_is_given_up(enter: Enter, monkeypatch) -> None:
    monkeypatch.setattr(process_module, "_PATIENCE_START", 0.5)
    (row,) = race_of(enter, "hangs", effort=Effort(rounds=1))
    assert row.status == "failed: no answer within 0 s"


def test_what_is_no_artifact_and_what_cannot_be_started_are_rows(enter: Enter, tmp_path: Path) -> None:
    good = enter("good")[0]
    gone = Entrant(Row("gone", "t", "not measured", 1.0, 1), (str(tmp_path / "nowhere"),), FRAME)
    error = ArtifactError("no manifest\nat all")
    broken_row, gone_row, good_row = race([broken("b", tmp_path, error), gone, good], Effort(rounds=1))
    assert broken_row.status == "failed: ArtifactError: no manifest at all"
    assert gone_row.status == f"failed: {tmp_path / 'nowhere'} cannot be started: No such file or directory"
    assert good_row.measured


def test_copies_are_stages_of_their_own(enter: Enter) -> None:
    on_cpu, on_gpu = race_of(enter, "cpu", "copies")
    assert on_cpu.stages_ms == {"preprocess": 1.0, "inference": 8.0, "decode": 1.0}
    assert list(on_gpu.stages_ms.items()) == [
        ("preprocess", 1.0),
        ("copy_in", 0.5),
        ("inference", 6.5),
        ("copy_out", 1.0),
        ("decode", 1.0),
    ]
    assert on_gpu.latency_ms["p50"] == 8.0


def test_power_is_read_around_the_turns(enter: Enter) -> None:
    class Meter:
        def over(self, spans: Sequence[tuple[float, float]], frames: int) -> PowerRecord:
            assert all(start < end for start, end in spans)
            self.seen = len(spans), frames
            return PowerRecord(0.5, 5.0, "VDD_IN", throttling=("too warm",), notes=("a note",))

    meter = Meter()
    (row,) = race_of(enter, "fast", effort=Effort(rounds=3), meter=meter)
    assert meter.seen == (3, 3)
    assert (row.energy_j, row.power["rail"]) == (0.5, "VDD_IN")
    assert "too warm" in row.unstable
    assert row.notes == ("a note",)


def test_what_makes_no_sense_is_refused(enter: Enter) -> None:
    with pytest.raises(SpecError, match="percentile 95 is unknown; known: 50, 90, 99"):
        Effort(percentile=95)
    twice = enter("one") * 2
    with pytest.raises(SpecError, match="two rows have one name: one, one"):
        race(twice, Effort(rounds=1))
    assert race([], Effort()) == []
