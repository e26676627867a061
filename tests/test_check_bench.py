"""tools/check_bench.py: the bench against other people's measurements of the same engine."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emadeploy.contract.errors import DeviceError, SpecError
from emadeploy.contract.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import check_bench as tool

Make = Callable[..., Path]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "bench.md"
    path.write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n")
    return path


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that makes theirs so many milliseconds for ever, and ours 10."""

    def make(milliseconds: float) -> None:
        monkeypatch.setattr(tool, "_ours", lambda child: lambda calls: 10.0)
        monkeypatch.setattr(tool, "plain_loop", lambda *_: ("a loop", lambda calls: milliseconds))

    return make


def run(document: Path, *artifacts: Path) -> int:
    places = ["--json", str(document.with_name("check.json")), "--document", str(document)]
    return tool.main([*map(str, artifacts), "--rounds", "6", "--calls", "2", "--threads", "1", *places])


def test_what_agrees_is_written_and_a_success(steady, make_artifact: Make, document: Path, capsys) -> None:
    steady(9.5)
    assert run(document, make_artifact("tiny")) == 0
    [row] = json.loads(document.with_name("check.json").read_text())["rows"]
    assert row["ratio"] == pytest.approx(10 / 9.5)
    assert row["agrees"]
    assert row["rounds_ms"] == [[10.0, 9.5]] * 6
    text = document.read_text()
    assert text.startswith(f"before\n{tool.BEGIN}\n| engine")
    assert text.endswith(f"{tool.END}\nafter\n")
    assert "| tiny | a loop | 10.00 | 9.50 | 1.053 [1.053, 1.053] | yes |" in text
    assert "| tiny | a loop |" in capsys.readouterr().out


@pytest.mark.parametrize("theirs", [9.0, 11.2])
def test_what_does_not_agree_is_a_failure(steady, make_artifact: Make, document: Path, theirs: float) -> None:
    steady(theirs)
    assert run(document, make_artifact("tiny")) == 1
    assert "**no**" in document.read_text()


def test_a_plain_loop_measures_the_same_graph(make_artifact: Make) -> None:
    row = tool.check(make_artifact(), threads=1, rounds=1, calls=2, within=10)
    assert row["against"].startswith("plain loop, onnxruntime")
    assert row["ours_ms"] > 0
    assert row["theirs_ms"] > 0
    assert row["ratio_ci"] is None  # one round tells nothing of noise


def test_benchmark_app_takes_our_properties(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from networks import tiny_graph

    from emadeploy.build.openvino import build

    build(tiny_graph(tmp_path / "graph"), tmp_path / "tiny", "openvino-fp32")
    manifest = Manifest.read(tmp_path / "tiny")
    name, theirs = tool.benchmark_app(tmp_path / "tiny", manifest, 1)
    assert name == f"benchmark_app {openvino.get_version().split('-')[0]}"
    assert theirs(3) > 0


def test_who_begins_changes() -> None:
    order: list[str] = []

    def named(name: str) -> tool.Theirs:
        return lambda calls: order.append(name) or float(len(name))

    pairs = [tool._round(named("a"), named("bb"), 1, flipped=flipped) for flipped in (False, True)]
    assert pairs == [(1.0, 2.0)] * 2
    assert order == ["a", "bb", "bb", "a"]


def test_what_cannot_be_checked_is_refused(make_artifact: Make, document: Path, capsys, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is for tensorrt; there is a measurement of openvino and onnxruntime alone"):
        tool.check(make_artifact("trt", target="trt-fp32"), 1, 1, 1, 10)
    with pytest.raises(SpecError, match="rounds 0"):
        tool.check(make_artifact("zero"), 1, 0, 1, 10)
    (tmp_path / "other.md").write_text("no table here")
    assert run(tmp_path / "other.md", tmp_path / "nowhere") == 1
    assert "has no place for the table" in capsys.readouterr().err
    assert run(document, tmp_path / "nowhere") == 1
    assert "does not exist" in capsys.readouterr().err
    assert "old" in document.read_text()


def test_a_process_that_fails_is_told(make_artifact: Make) -> None:
    with pytest.raises(DeviceError, match=r"ended with status 1: .*boom"):
        tool._run([sys.executable, "-c", "raise SystemExit('boom')"])
    with pytest.raises(DeviceError, match="the bench's own process: failed: ArtifactError"):
        tool.check(make_artifact(inputs=()), 1, 1, 1, 10)
