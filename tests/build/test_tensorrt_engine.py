"""A portable artifact becomes an engine: audited per branch, and refused where a precision is not obtained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import CONVOLUTIONS, tiny_graph

from emadeploy.build import tensorrt_engine
from emadeploy.build.tensorrt import build
from emadeploy.build.tensorrt_engine import compile_artifact
from emadeploy.cli import inspect
from emadeploy.contract.errors import ArtifactError, BuildError
from emadeploy.contract.manifest import FileRecord, Manifest
from emadeploy.runtime.trt import compiling
from emadeploy.runtime.trt.compiling import Options
from emadeploy.runtime.trt.device import Device
from emadeploy.runtime.trt.layers import EngineLayer
from emadeploy.runtime.trt.library import Library
from emadeploy.runtime.trt.record import EngineRecord

ORIN = Device("NVIDIA Jetson Orin Nano", "8.7", "36.4.4", "12.6", 8 << 30)
BRANCHES = ("backbone", "ctal", "heads.depth")
Install = Callable[..., Library]


@pytest.fixture(autouse=True)
def _on_orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "here", lambda: ORIN)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    build(tiny_graph(tmp_path / "graph"), tmp_path / "artifact", "trt-fp32")
    return tmp_path / "artifact"


def silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""


def test_the_manifest_says_what_was_obtained(everywhere: Install, artifact: Path) -> None:
    library = everywhere("tensorrt-10.3")
    built = compile_artifact(artifact, Options(), silent)
    assert built.fresh
    manifest = Manifest.read(artifact)
    assert manifest == built.manifest
    assert manifest.compiled
    assert manifest.precision == dict.fromkeys(BRANCHES, "fp32")
    assert manifest.versions["tensorrt"] == library.version_text
    assert manifest.audit is not None
    assert manifest.audit == EngineRecord.read(artifact).audit
    assert (manifest.audit["engine"], manifest.audit["machine"]) == (f"tensorrt {library.version_text}", ORIN.name)
    assert manifest.audit["branches"]["ctal"]["compute"] == {"fp32": 2}
    assert manifest.audit["total"] | {"microseconds": 0, "time": {}} == manifest.audit["total"]


def test_what_is_built_is_not_built_again(everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere("tensorrt-10.3")
    first = compile_artifact(artifact, Options(), silent)
    started: list[Any] = []
    compiled = tensorrt_engine.compiled
    monkeypatch.setattr(tensorrt_engine, "compiled", lambda *given: started.append(given) or compiled(*given))
    again = compile_artifact(artifact, Options(), silent)
    assert (again.fresh, again.record, started) == (False, first.record, [])
    assert compile_artifact(artifact, Options(), silent, force=True).fresh
    assert compile_artifact(artifact, Options(optimization_level=1), silent).fresh
    assert len(started) == 2


def test_a_manifest_that_was_not_written_in_time_is_now(everywhere: Install, artifact: Path) -> None:
    everywhere("tensorrt-10.3")
    before = (artifact / "manifest.json").read_bytes()
    built = compile_artifact(artifact, Options(), silent)
    (artifact / "manifest.json").write_bytes(before)
    assert not compile_artifact(artifact, Options(), silent).fresh
    assert Manifest.read(artifact) == built.manifest


def test_an_engine_of_a_first_load_is_built_again_for_its_audit(everywhere: Install, artifact: Path) -> None:
    everywhere("tensorrt-10.3")
    with compiling.compiled(artifact, Options(), silent) as engine:
        engine.record.write(artifact, engine.made)
    built = compile_artifact(artifact, Options(), silent)
    assert built.fresh
    assert built.record.audit is not None


def in_layers(monkeypatch: pytest.MonkeyPatch, *precisions: str, compute: bool = True) -> None:
    """Have the engine compute each convolution in the next of ``precisions``."""
    layers = [
        EngineLayer(node, "conv", (node,), precision, compute)
        for node, precision in zip(CONVOLUTIONS, precisions, strict=False)
    ]
    monkeypatch.setattr(compiling, "run_child", lambda order, report: answer(order, layers))


def answer(order: dict[str, Any], layers: list[EngineLayer]) -> dict[str, Any]:
    Path(order["plan"]).write_bytes(b"a plan")
    return {"seconds": 1.0, "layers": [vars(layer) for layer in layers]}


def test_a_precision_that_is_not_obtained_is_an_error_and_leaves_the_artifact(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    in_layers(monkeypatch, "fp32", "fp16", "fp32")
    before = {path.name: path.read_bytes() for path in artifact.iterdir()}
    message = (
        r"trt-fp32: branch 'backbone' was asked for in fp32; 1 convolution or product runs in fp16: backbone\.conv2"
    )
    with pytest.raises(BuildError, match=message):
        compile_artifact(artifact, Options(), silent)
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == before


def test_a_node_that_is_kept_on_purpose_may_be_higher(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    in_layers(monkeypatch, "fp16", "fp32", "fp16")
    manifest = Manifest.read(artifact)
    kept = replace(manifest, target="trt-fp16", asked=dict.fromkeys(BRANCHES, "fp16"))
    replace(kept, calibration={"kept": [CONVOLUTIONS[1]]}).write(artifact)
    built = compile_artifact(artifact, Options(), silent)
    assert built.manifest.precision == {"backbone": "mixed", "heads.depth": "fp16"}
    kept.write(artifact)
    with pytest.raises(BuildError, match=r"asked for in fp16; 1 convolution or product runs in fp32"):
        compile_artifact(artifact, Options(), silent, force=True)


def test_what_float16_would_harm_runs_in_float32_or_not_at_all(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    manifest = replace(Manifest.read(artifact), target="trt-fp16", asked=dict.fromkeys(BRANCHES, "fp16"))
    replace(manifest, calibration={"half": {"float32": [CONVOLUTIONS[1]]}}).write(artifact)
    in_layers(monkeypatch, "fp16", "fp16", "fp16")
    with pytest.raises(BuildError, match=rf"'{CONVOLUTIONS[1]}' was kept in float32, .* runs it in fp16"):
        compile_artifact(artifact, Options(), silent)
    in_layers(monkeypatch, "fp16", "fp32", "fp16")
    assert compile_artifact(artifact, Options(), silent).manifest.precision["backbone"] == "mixed"


def test_what_tensorrt_does_not_tell_stays_unknown(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    in_layers(monkeypatch)
    built = compile_artifact(artifact, Options(), silent)
    assert built.manifest.precision == dict.fromkeys(BRANCHES, "unknown")
    assert built.manifest.audit is None
    in_layers(monkeypatch, "fp32", "unknown", "fp32")
    built = compile_artifact(artifact, Options(), silent)
    assert built.manifest.precision == {"backbone": "mixed", "heads.depth": "fp32"}
    assert built.manifest.audit is not None
    assert built.manifest.audit["branches"]["backbone"]["compute"] == {"fp32": 1, "unknown": 1}


def test_a_branch_without_a_product_has_the_precision_of_most_of_its_layers(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")
    in_layers(monkeypatch, "fp16", "fp16", "int32", compute=False)
    assert compile_artifact(artifact, Options(), silent).manifest.precision == {
        "backbone": "fp16",
        "heads.depth": "int32",
    }


def test_a_changed_graph_is_compiled_anew(everywhere: Install, artifact: Path) -> None:
    everywhere("tensorrt-10.3")
    first = compile_artifact(artifact, Options(), silent)
    model = onnx.load(artifact / "model.onnx")
    model.doc_string = "another"
    onnx.save(model, artifact / "model.onnx")
    manifest = Manifest.read(artifact)
    replace(manifest, files={"model.onnx": FileRecord.of(artifact / "model.onnx")}).write(artifact)
    second = compile_artifact(artifact, Options(), silent)
    assert second.fresh
    assert second.record.key.source != first.record.key.source
    assert not (artifact / first.record.plan).exists()


def test_a_manifest_that_cannot_be_written_is_told(
    everywhere: Install, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere("tensorrt-10.3")

    def full(self: Manifest, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Manifest, "write", full)
    with pytest.raises(BuildError, match="cannot be written: No space left on device"):
        compile_artifact(artifact, Options(), silent)


def test_inspect_tells_what_it_is_compiled_for_and_looks_at_the_plan(
    everywhere: Install, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everywhere("tensorrt-10.3")
    record = compile_artifact(artifact, Options(), silent).record
    inspect.command(artifact)
    shown = capsys.readouterr().out
    assert record.key.describe() in " ".join(shown.split())
    assert record.plan in shown
    assert "not measured" in shown
    plan = artifact / record.plan
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="differs from the digest"):
        inspect.command(artifact)
    (artifact / "engine.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"engine\.json"):
        inspect.command(artifact)
