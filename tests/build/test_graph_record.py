"""The record of a graph, on disk and back."""

from dataclasses import replace
from pathlib import Path

import pytest

from emadeploy.build.graph import GRAPH_NAME, RECORD_NAME, OnnxGraph
from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    record = OnnxGraph(
        folder=tmp_path,
        model=ModelSpec("tiny", "emanet", (TaskSpec("depth"),), InputSpec(32, 64)),
        opset=18,
        ctal="exact",
        rewrites=("batch norms folded",),
        branches=("backbone", "ctal"),
        inputs=(TensorSpec("frame", (20, 30, 3), "uint8", "HWC"),),
        outputs=(TensorSpec("depth", (20, 30), "float32", "HW"),),
        frame_size=(20, 30),
        parity={"depth": {"decoded_error": 1e-6}},
        notes=("a note",),
        source={"untrained": True},
    )
    (tmp_path / GRAPH_NAME).write_bytes(b"a graph")
    record.write()
    return record


def test_there_and_back(graph: OnnxGraph) -> None:
    assert OnnxGraph.read(graph.folder) == graph
    whole = replace(graph, frame_size=None)
    whole.write()
    assert OnnxGraph.read(graph.folder) == whole


def test_facts_for_the_manifest(graph: OnnxGraph) -> None:
    facts = {"opset": 18, "ctal": "exact", "rewrites": ["batch norms folded"], "notes": ["a note"]}
    assert graph.facts() == facts
    assert "ctal" not in replace(graph, ctal=None).facts()


def test_a_quantised_graph_there_and_back(graph: OnnxGraph) -> None:
    quantised = replace(graph, calibration={"recipe": "min-max", "kept": ["ctal/MatMul"]}, asked={"ctal": "bf16"})
    quantised.ir_path.write_text("layers")
    quantised.ir_path.with_suffix(".bin").write_bytes(b"weights")
    quantised.write()
    assert OnnxGraph.read(graph.folder) == quantised
    assert quantised.kept == {"ctal/MatMul"}
    assert graph.kept == frozenset()


@pytest.mark.parametrize("file", ["model.xml", "model.bin"])
@pytest.mark.parametrize("harm", ["altered", "missing", "planted"])
def test_a_harmed_quantised_form_is_refused(graph: OnnxGraph, file: str, harm: str) -> None:
    path = graph.folder / file
    if harm != "planted":
        path.write_text("layers")
    graph.write()
    OnnxGraph.read(graph.folder)
    if harm == "missing":
        path.unlink()
    else:
        path.write_text("others")
    with pytest.raises(ArtifactError, match=rf"{file} differs from its digest"):
        OnnxGraph.read(graph.folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (GRAPH_NAME, "another graph", "differs from its digest"),
        (RECORD_NAME, "{}", "of another version"),
        (RECORD_NAME, '{"schema": 2}', "is not the record of a graph"),
        (RECORD_NAME, "nothing", "is not the record of a graph"),
    ],
)
def test_damaged_records_are_refused(graph: OnnxGraph, file: str, content: str, message: str) -> None:
    (graph.folder / file).write_text(content)
    with pytest.raises(ArtifactError, match=message):
        OnnxGraph.read(graph.folder)
