"""The engines that a bench builds for itself: which, of what, kept how; a tiny graph stands in for the export."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
from networks import tiny_graph

from emadeploy.cli.bench_parts import engines as engines_module
from emadeploy.cli.bench_parts.engines import Engines, Wish, built_in, engines_of
from emadeploy.cli.bench_parts.notes import notes_of
from emadeploy.contract.errors import ArtifactError, BuildError, ExportError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec

FP32 = Wish("fp32", "onnxruntime-fp32")
PUBLISHED = Wish("published", "onnxruntime-fp32", "affinity")
BF16 = Wish("bf16", "openvino-bf16")


class Exports:
    """Stands in for the export: counts what is traced, and fails for the forms it is told to."""

    def __init__(self) -> None:
        self.traced: list[tuple[str | None, bool]] = []
        self.failing: set[str | None] = set()

    def __call__(self, source, wanted, folder: Path, *, report, compared):
        self.traced.append((wanted.ctal, wanted.low_precision))
        if wanted.ctal in self.failing:
            raise ExportError("no graph")
        return tiny_graph(folder, source={"model": "tiny"})


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    found = Exports()
    monkeypatch.setattr(engines_module, "export_graph", found)
    spec = ModelSpec("tiny", "hps", (TaskSpec("depth"),), InputSpec(32, 64))
    source = SimpleNamespace(spec=spec, record={"model": "tiny", "sha256": "1" * 64})
    monkeypatch.setattr(engines_module, "open_source", lambda name, **options: source)
    found.source = source  # type: ignore[attr-defined]
    return found


def test_each_form_is_traced_once_and_what_lies_there_is_used_again(exports: Exports, capsys) -> None:
    rest = Wish("again", "onnxruntime-fp32")
    places = Engines("tiny").build([PUBLISHED, FP32, rest])
    assert exports.traced == [("affinity", False), (None, False)]
    assert [Manifest.read(place).target for place in places.values()] == ["onnxruntime-fp32"] * 3
    assert capsys.readouterr().out.splitlines()[:2] == ["[1/3] published", "[2/3] fp32"]
    exports.traced.clear()
    assert Engines("tiny").build([PUBLISHED, FP32]) == {key: places[key] for key in ("published", "fp32")}
    assert exports.traced == []
    assert "2 of 2 engines lie ready in " in capsys.readouterr().out


def test_what_is_damaged_or_of_other_weights_is_built_anew(exports: Exports) -> None:
    place = Engines("tiny").build([FP32])["fp32"]
    (place / "model.onnx").write_bytes(b"x")
    assert Engines("tiny").build([FP32])["fp32"] == place
    Manifest.read(place).verify_files(place)
    assert len(exports.traced) == 2
    exports.source.record["sha256"] = "2" * 64  # type: ignore[attr-defined]
    assert Engines("tiny").build([FP32])["fp32"] != place
    assert len(exports.traced) == 3


def test_where_one_fails_what_was_complete_stays_and_nothing_half(exports: Exports, tmp_path: Path) -> None:
    exports.failing = {"affinity"}
    with pytest.raises(ExportError, match="no graph"):
        Engines("tiny").build([FP32, PUBLISHED])
    left = [path.relative_to(tmp_path / "cache" / "bench") for path in (tmp_path / "cache" / "bench").glob("*/*")]
    assert [path.name for path in left] == ["fp32"]
    exports.traced.clear()
    exports.failing = set()
    assert set(Engines("tiny").build([FP32, PUBLISHED])) == {"fp32", "published"}
    assert exports.traced == [("affinity", False)]


def test_a_cache_that_cannot_be_written_is_told(exports: Exports, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BuildError, match="cache"):
        Engines("tiny").build([FP32])


def test_what_this_machine_runs_is_what_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"target": "onnxruntime-fp32", "export": None, "run": None},
        {"target": "openvino-bf16", "export": None, "run": "no device of this machine has bf16"},
        {"target": "openvino-int8", "export": "needs nncf", "run": None},
        {"target": "trt-fp16", "export": None, "run": None},
    ]
    monkeypatch.setattr(engines_module, "targets", lambda: rows)
    assert [wish.name for wish in built_in("auto")] == ["published", "onnxruntime-fp32", "trt-fp16"]
    assert [wish.name for wish in built_in("gpu:0")] == ["trt-fp16"]
    assert [wish.name for wish in built_in("cpu")] == ["published", "onnxruntime-fp32"]
    assert built_in("auto")[0].ctal == "affinity"
    assert BF16.low_precision
    assert not FP32.low_precision


def test_the_network_of_an_artifact_is_found_and_must_be_the_same(
    exports: Exports, make_artifact: Callable[..., Path]
) -> None:
    record = {"model": "tiny", "checkpoint": "zoo model tiny", "sha256": "1" * 64}
    artifact = make_artifact("same", source=record)
    engines = engines_of(artifact, Manifest.read(artifact))
    assert engines.build([PUBLISHED])["published"].name == "published"
    other = make_artifact("other", source={**record, "sha256": "3" * 64})
    with pytest.raises(ArtifactError, match="of digest 333333333333; what is there now has 111111111111"):
        engines_of(other, Manifest.read(other))
    unknown = make_artifact("unknown")
    with pytest.raises(ArtifactError, match="names neither a model nor a checkpoint"):
        engines_of(unknown, Manifest.read(unknown))


def test_notes_say_what_a_manifest_leaves_open(make_artifact: Callable[..., Path]) -> None:
    calibration = {"frames": {"count": 16}}
    unjudged = make_artifact("a", target="onnxruntime-int8", calibration=calibration, source={"untrained": True})
    assert notes_of(Manifest.read(unjudged)) == (
        "random weights: its times alone mean something",
        "calibrated on 16 frames and not judged when it was exported: no budget was held",
    )
    judged = make_artifact("b", target="onnxruntime-int8", calibration=calibration, accuracy={"tasks": {}})
    assert notes_of(Manifest.read(judged)) == notes_of(Manifest.read(make_artifact("c"))) == ()
