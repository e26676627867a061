"""Fixtures for calibration: a small EMA-Net as a plain graph, and frames that fit it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper, numpy_helper
from shortened import TASKS, shortened, structured

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.contract.spec import InputSpec, ModelSpec, TensorSpec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Any]:
    """Return `shortened.shortened`, which makes small networks."""
    pytest.importorskip("torch")
    return shortened


@pytest.fixture(scope="session")
def emanet(make_network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> OnnxGraph:
    """Return the plain graph of an EMA-Net."""
    import torch

    from emadeploy.export import deploy, trace

    network = make_network()
    plain, rewrites = deploy.exact(network, TASKS, tiled=False)
    model = trace.to_onnx(deploy.Deployed(plain, TASKS), torch.zeros(1, 3, 64, 96), "image", TASKS)
    return record(model, network.spec, tmp_path_factory.mktemp("emanet"), rewrites)


def record(model: onnx.ModelProto, spec: ModelSpec, folder: Path, rewrites: tuple[str, ...] = ()) -> OnnxGraph:
    """Write a graph and its record."""

    def specs(values) -> tuple[TensorSpec, ...]:
        shapes = [(value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim)) for value in values]
        return tuple(TensorSpec(name, shape, "float32", "ABCDEF"[: len(shape)]) for name, shape in shapes)

    inputs, outputs = specs(model.graph.input), specs(model.graph.output)
    graph = OnnxGraph(folder, spec, 18, "exact", rewrites, ("backbone", "ctal"), inputs, outputs)
    onnx.save(model, graph.path)
    graph.write()
    return graph


def calibration_frames(count: int = 16, seed: int = 0) -> CalibrationFrames:
    return CalibrationFrames(structured(count, (64, 96), seed), InputSpec(64, 96), f"structured:{seed}")


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., CalibrationFrames]:
    """Return a function that makes frames of 64 x 96: ``count`` of them, others with another ``seed``."""
    return calibration_frames


@pytest.fixture(scope="session")
def write_graph() -> Callable[..., OnnxGraph]:
    """Return a function that writes a model, its spec and a record into a folder."""
    return record


@pytest.fixture(scope="session")
def frames() -> CalibrationFrames:
    return calibration_frames()


Build = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function that makes a graph of nodes ``(op, name, inputs, outputs, attributes)`` on an image 64 x 96.

    Constants are arrays by name; every node's results are declared with their shapes.
    """

    def make(nodes, constants, outputs) -> onnx.ModelProto:
        def value(name, shape):
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            [helper.make_node(op, reads, makes, name=name, **extra) for op, name, reads, makes, extra in nodes],
            "built",
            [value("image", (1, 3, 64, 96))],
            [value(name, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    return make
