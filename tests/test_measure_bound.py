"""tools/measure_bound.py: counts the arithmetic of a graph, and refuses what has no audit."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from emadeploy.contract.manifest import FileRecord

ov = pytest.importorskip("openvino")
pytest.importorskip("nncf")
TOOL = Path(__file__).parents[1] / "tools" / "measure_bound.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_bound", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(node, name: str):
    node.set_friendly_name(name)
    return node


def network() -> "ov.Model":
    """A convolution, a depthwise one and a product of activations, in two branches."""
    from openvino import opset13 as ops

    image = ops.parameter((1, 4, 8, 12), np.float32)
    weights, depthwise = np.ones((6, 4, 3, 3), np.float32), np.ones((6, 1, 1, 3, 3), np.float32)
    strided = ops.convolution(image, ops.constant(weights), [2, 2], [1, 1], [1, 1], [1, 1])
    feat = named(strided, "backbone.0/Conv")
    each = ops.group_convolution(feat, ops.constant(depthwise), [1, 1], [1, 1], [1, 1], [1, 1])
    each = named(each, "backbone.1/Conv")
    rows = ops.reshape(each, ops.constant(np.array([6, 24])), special_zero=False)
    product = named(ops.matmul(rows, rows, True, False), "heads.depth.0/MatMul")
    return ov.Model([product], [image])


def test_work_is_counted_by_branch(tool):
    # 6 x 4 x 6 results of 4 * 9 products, and of 9; 24 x 24 results of 6.
    assert tool.work_by_branch(network()) == {"backbone": 144 * 36 + 144 * 9, "heads.depth": 576 * 6}


def test_bound_and_reached_of_an_artifact(tool, make_artifact, tmp_path):
    ov.save_model(network(), tmp_path / "model.xml", compress_to_fp16=False)
    made = [tmp_path / "model.xml", tmp_path / "model.bin"]
    artifact = make_artifact(
        target="openvino-int8",
        engine_file="model.xml",
        files={path.name: FileRecord.of(path) for path in made},
        audit={"machine": "SomeCPU", "branches": {"backbone": {"microseconds": 250}, "other": {"microseconds": 50}}},
    )
    for path in made:
        path.rename(artifact / path.name)
    found = tool.bound_of(artifact, 1e6)
    assert found["branches"]["backbone"] == {"macs": 6480, "bound_ms": pytest.approx(6.48), "reached_ms": 0.25}
    assert found["branches"]["other"] == {"macs": 0, "bound_ms": 0, "reached_ms": 0.05}
    assert found["total"]["reached_ms"] == pytest.approx(0.3)
    assert found["size"] == [64, 96]


def test_an_artifact_without_audit_is_refused(tool, make_artifact, capsys, tmp_path, monkeypatch):
    with pytest.raises(tool.ArtifactError, match="expected an audited artifact of openvino-int8"):
        tool.bound_of(make_artifact(), 1e9)
    monkeypatch.setattr(tool, "rate", lambda threads: 1e9)
    assert tool.main([str(tmp_path / "nothing"), "--json", str(tmp_path / "bound.json")]) == 1
    assert "measure_bound: " in capsys.readouterr().err
    assert not (tmp_path / "bound.json").exists()
