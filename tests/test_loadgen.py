"""tools/loadgen_singlestream.py: MLPerf's LoadGen drives the runtime, and its logs are read back."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emadeploy.contract.errors import BackendMissing, DataError, FrameError
from emadeploy.data.source import open_data
from emadeploy.evaluate.metrics import default_edges
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime import load

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import loadgen_singlestream as tool

DATA = "rooms:seed=3,count=3,size=64x96"
Make = Callable[..., Path]


@pytest.fixture
def loadgen() -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel here")


def test_loadgen_times_the_runtime(loadgen: None, make_artifact: Make, tmp_path: Path) -> None:
    with load(make_artifact(), threads=1) as perception:
        summary = tool.performance(perception, open_data(DATA, split="val"), 0.2, tmp_path)
    assert summary.valid
    assert summary.n >= 64
    assert 0 < summary.p50 <= summary.p90 <= summary.p99


def test_accuracy_mode_equals_eval(loadgen: None, make_artifact: Make, tmp_path: Path) -> None:
    data = open_data(DATA, split="val")
    with load(make_artifact(), threads=1) as perception:
        record = tool.accuracy(perception, data, tmp_path)
        direct = evaluate(lambda frame: perception(frame).maps, data, perception.spec.tasks, edges=default_edges())
    assert record == direct
    assert record["frames"] == len(data) > 0


def test_the_command(loadgen: None, make_artifact: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = [
        str(make_artifact()),
        "--data",
        DATA,
        "--min-seconds",
        "0.2",
        "--threads",
        "1",
        "-o",
        str(tmp_path / "l"),
    ]
    assert tool.main(arguments) == 0
    said = capsys.readouterr().out
    assert "MLPerf LoadGen" in said
    assert "emadeploy bench" in said
    assert "valid" in said
    assert "depth: " in said
    assert (tmp_path / "l" / "mlperf_log_summary.txt").is_file()


def test_what_the_runtime_raises_is_raised(loadgen: None, make_artifact: Make, tmp_path: Path) -> None:
    data = open_data(DATA, split="val")
    with load(make_artifact(frame_size=(32, 32)), threads=1) as perception, pytest.raises(FrameError, match="64 x 96"):
        tool.performance(perception, data, 0.1, tmp_path)


def test_without_loadgen_it_says_what_to_install(
    make_artifact: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with load(make_artifact("a"), threads=1) as perception, pytest.raises(BackendMissing, match="mlcommons-loadgen"):
        tool.drive(perception, open_data(DATA, split="val"), tmp_path, min_seconds=0.1)
    assert tool.main([str(make_artifact("b")), "--data", DATA]) == 1
    assert "pip install mlcommons-loadgen" in capsys.readouterr().err


def test_maps_survive_the_log() -> None:
    maps = {"depth": np.array([[1.5, np.nan]], np.float32), "semseg": np.array([[3, 255]], np.uint8)}
    again = tool.unpack(tool.pack(maps))
    assert list(again) == list(maps)
    for name, array in maps.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


def test_logs_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary").write_text("Result is : VALID\n")
    with pytest.raises(DataError, match="does not tell p50, p90, p99, n"):
        tool.read_summary(tmp_path / "summary")
    for text in ("{", '[{"qsl_idx": 0, "data": "zz"}]', '[{"data": ""}]', '[{"qsl_idx": 0, "data": ""}]'):
        (tmp_path / "accuracy").write_text(text)
        with pytest.raises(DataError, match="is not LoadGen's log"):
            tool.read_answers(tmp_path / "accuracy")


def test_a_run_that_loadgen_calls_invalid_is_no_success(tmp_path: Path) -> None:
    lines = [
        "Result is : INVALID",
        "90.0th percentile latency (ns) : 3000000",
        " * Processed at least 64 queries (64).",
    ]
    lines += [f"{number:.2f} percentile latency (ns)   : {number}000000" for number in (50, 90, 99)]
    (tmp_path / "summary").write_text("\n".join(lines))
    summary = tool.read_summary(tmp_path / "summary")
    assert not summary.valid
    assert (summary.p50, summary.p90, summary.p99, summary.n) == (50, 3, 99, 64)
