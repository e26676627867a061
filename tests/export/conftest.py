"""Fixtures for export: small networks with weights that leave nothing at its default, and their graphs."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from emadeploy import nets
from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import CtalSpec, InputSpec, ModelSpec, TaskSpec
from emadeploy.export.parity import structured_frame
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.nets.ctal import CrossTaskAttention
from emadeploy.nets.hrnet import HRNet
from emadeploy.nets.network import Network

CHANNELS = {"semseg": 13, "depth": 1, "normals": 3, "edge": 1, "saliency": 2, "human_parts": 7}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def spec_of(network: str, tasks: tuple[str, ...], size: tuple[int, int] = (32, 64)) -> ModelSpec:
    return ModelSpec(
        name="tiny",
        network=network,
        tasks=tuple(TaskSpec(kind, CHANNELS[kind]) for kind in tasks),
        input=InputSpec(*size, mean=MEAN, std=STD),
        ctal=CtalSpec(gamma=0.3),
    )


def unsettle(network: torch.nn.Module) -> None:
    """Give all that starts out as 0 or 1, and would hide a mistake, another value: norms, biases, fusion weights."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.2)
            module.bias.data.normal_(0, 0.2)
        elif isinstance(module, CrossTaskAttention):
            layer = module.fusion_layer
            layer.weight.data.normal_(0, 10 / layer.weight.shape[0])
            layer.bias.data.normal_(0, 10 / layer.weight.shape[0])
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and module.bias is not None:
            module.bias.data.normal_(0, 0.1)


def standardise(network: Network) -> None:
    """Give every raw map mean 0 and deviation 1, so that decoding has something to decide on every task."""
    image = preprocess(structured_frame(network.spec.input.size, seed=0), network.spec.input)
    with torch.no_grad():
        raw = network.deploy(torch.from_numpy(image))
    for task, head in network.heads.items():
        prediction = [layer for layer in head.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
        deviation, mean = torch.std_mean(raw[task], dim=(0, 2, 3))
        prediction.weight.data /= deviation[:, None, None, None]
        prediction.bias.data = (prediction.bias.data - mean) / deviation


def shorten(network: Network) -> None:
    """Keep one module of each stage of the backbones: tracing takes half the time and meets the same layers."""
    for module in network.modules():
        if isinstance(module, HRNet):
            module.stage3, module.stage4 = module.stage3[:1], module.stage4[:1]


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Network]:
    """Return a function that makes a network, in eval mode; the same arguments give the same weights."""

    def make(network: str, tasks: tuple[str, ...], size: tuple[int, int] = (32, 64)) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nets.build(spec_of(network, tasks, size))
            shorten(model)
            unsettle(model)
            standardise(model.eval())
        return model

    return make


Exported = tuple[Network, OnnxGraph, onnx.ModelProto]


@pytest.fixture(scope="session")
def export(make_network: Callable[..., Network], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Return a function that exports a network, once per arguments: tracing one takes seconds."""
    done: dict[object, Exported] = {}

    def run(
        network: str, tasks: tuple[str, ...], wanted: Wanted | None = None, size: tuple[int, int] = (32, 64)
    ) -> Exported:
        key = (network, tasks, wanted, size)
        if key not in done:
            folder: Path = tmp_path_factory.mktemp(network)
            model = make_network(network, tasks, size)
            source = Source(model, "a test", {"model": "tiny", "untrained": True})
            graph = export_graph(source, wanted or Wanted(), folder, report=lambda line: None, compared=1)
            done[key] = model, graph, onnx.load(graph.path)
        return done[key]

    return run


@pytest.fixture(scope="session")
def exact(export: Callable[..., Exported]) -> Exported:
    """Return EMA-Net exported in its exact form, for a map of 40 x 40 pixels."""
    return export("emanet", ("semseg", "depth"), size=(160, 160))


@pytest.fixture(scope="session")
def affinity(export: Callable[..., Exported]) -> Exported:
    """Return EMA-Net exported as published: the control of what the exact form must not hold."""
    return export("emanet", ("semseg", "depth"), Wanted(ctal="affinity"), size=(160, 160))


@pytest.fixture(scope="session")
def off() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Return the relative L2 error of the first tensor against the second."""

    def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
        return (torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted)).item()

    return error
