"""Fixtures for calibration: a small EMA-Net as a plain graph, and frames that fit it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.contract.preprocess import resize_bilinear
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec

TASKS = ("semseg", "depth", "normals")


def structured(count: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Return frames that differ and vary smoothly, as pictures do, with a little noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        coarse = rng.uniform(0, 255, (3, 4, 5)).astype(np.float32)
        noise = rng.normal(0, 4, (*size, 3))
        frames.append(np.clip(np.moveaxis(resize_bilinear(coarse, size), 0, 2) + noise, 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Any]:
    """Return a function that makes a shortened network with random weights at 64 x 96, nothing left at its default."""
    torch = pytest.importorskip("torch")
    from emadeploy import nets
    from emadeploy.nets.hrnet import HRNet

    def make(network: str = "emanet", tasks: tuple[str, ...] = TASKS) -> Any:
        chosen = tuple(TaskSpec(kind, 5 if kind == "semseg" else 0) for kind in tasks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            made = nets.build(ModelSpec("tiny", network, chosen, InputSpec(64, 96))).eval()
            for module in made.modules():
                if isinstance(module, HRNet):
                    shorten(module)
                elif isinstance(module, torch.nn.BatchNorm2d):
                    # Random layers around zero amplify every rounding, as trained ones do not; away from zero they do
                    # less.
                    module.weight.data.uniform_(0.4, 0.8)
                    module.bias.data.uniform_(0.5, 1.5)
            settle(made, torch.from_numpy(np.concatenate(list(calibration_frames(4)))))
        return made

    return make


@pytest.fixture(scope="session")
def emanet(make_network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> OnnxGraph:
    """Return the plain graph of an EMA-Net."""
    import torch

    from emadeploy.export import deploy, trace

    network = make_network()
    plain, rewrites = deploy.exact(network, TASKS, tiled=False)
    model = trace.to_onnx(deploy.Deployed(plain, TASKS), torch.zeros(1, 3, 64, 96), "image", TASKS)
    return record(model, network.spec, tmp_path_factory.mktemp("emanet"), rewrites)


def shorten(backbone) -> None:
    """Keep one module of each stage and one block of each branch: tracing takes half of the time."""
    backbone.stage3, backbone.stage4 = backbone.stage3[:1], backbone.stage4[:1]
    for stage in (backbone.stage2, backbone.stage3, backbone.stage4):
        for part in stage:
            for index, branch in enumerate(part.branches):
                part.branches[index] = branch[:1]


def settle(network, images) -> None:
    """Give batch norms the statistics that training would: otherwise values grow out of proportion with depth."""
    import torch

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        network.deploy(images)
    network.eval()


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
