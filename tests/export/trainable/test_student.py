"""The graph that ships, as it is trained: same places, same answers, and what it learns in the graph exported then."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from shortened import SIZE, TASKS, shortened, structured

from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate import onnxruntime as for_onnxruntime
from emadeploy.calibrate import tensorrt as for_tensorrt
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.learning import learning_of, prepare
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.contract.errors import ExportError
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec
from emadeploy.evaluate.parity import raw_error
from emadeploy.export.source import Source
from emadeploy.export.stage import Wanted, export_graph
from emadeploy.export.trainable.replay import Replay
from emadeploy.export.trainable.rounding import rounded
from emadeploy.export.trainable.student import Student
from emadeploy.export.trainable.ties import Ties

QUANTIZERS = {"onnxruntime-int8": for_onnxruntime.quantize, "trt-int8": for_tensorrt.quantize}
each_target = pytest.mark.parametrize("target", list(QUANTIZERS))


@pytest.fixture(scope="module")
def network() -> Any:
    return shortened()


@pytest.fixture(scope="module")
def graph(network: Any, tmp_path_factory: pytest.TempPathFactory) -> OnnxGraph:
    """Return the plain graph of the network, for low precision."""
    folder = tmp_path_factory.mktemp("plain")
    source = Source(network, "tiny", {"model": "tiny"})
    return export_graph(source, Wanted(low_precision=True), folder, report=lambda _: None, compared=1)


@pytest.fixture(scope="module")
def frames() -> CalibrationFrames:
    return CalibrationFrames(structured(16, SIZE), InputSpec(*SIZE), "structured")


@pytest.fixture(scope="module")
def prepared(
    graph: OnnxGraph, frames: CalibrationFrames, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, OnnxGraph]:
    """Return the graph with the Q/DQ of each target."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMADEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {
            target: prepare(graph, frames, recipe_of(target), target, tmp_path_factory.mktemp(target))
            for target in QUANTIZERS
        }


def recipe_of(target: str) -> Any:
    # Types that do not depend on the machine.
    types = "U8S8" if target == "onnxruntime-int8" else "S8S8"
    return replace(load_recipe(target), types=types, rest="fp32").resolved()


def student_of(network: Any, quantised: OnnxGraph) -> Student:
    record = learning_of(quantised)
    facts = {key: record[key] for key in ("target", "recipe", "structure")}
    return Student(
        network,
        onnx.load(quantised.path),
        record["groups"],
        largest=record["largest"],
        symmetric=record["symmetric"],
        facts={**facts, "facts": {"data": "structured"}},
    )


def answers(model: onnx.ModelProto, image: np.ndarray, names: Sequence[str] = TASKS) -> dict[str, np.ndarray]:
    """Return what ONNX Runtime makes of the graph as it stands: floats, rounded where it has Q/DQ."""
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), {"image": image}), strict=True))


def test_a_graph_without_rounding_is_the_network(network: Any, graph: OnnxGraph) -> None:
    images = torch.from_numpy(np.concatenate([preprocess(f, network.spec.input) for f in structured(2, SIZE, 3)]))
    plain = Student(network, onnx.load(graph.path), {}, largest=127, symmetric=False, facts={})
    with torch.no_grad():
        found, wanted = plain(images), network.deploy(images)
    for task in TASKS:
        assert found[task].shape == wanted[task].shape
        assert raw_error(found[task].numpy(), wanted[task].numpy()) < 1e-5


def test_tied_weights_are_those_of_the_exported_graph_to_the_bit(network: Any, graph: OnnxGraph) -> None:
    model = onnx.load(graph.path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = Replay(model).layers
    live = Ties(network, {layer.path for layer in layers.values()}).weights()
    assert len(live) > 40
    for layer in layers.values():
        weight, bias = live[layer.path]
        np.testing.assert_array_equal(weight.detach().numpy(), arrays[layer.node.inputs[1]])
        assert bias is not None
        # The exporter leaves a bias out that is zero.
        exported = arrays[layer.node.inputs[2]] if len(layer.node.inputs) > 2 else np.zeros(len(bias), np.float32)
        np.testing.assert_array_equal(bias.detach().numpy(), exported)


@each_target
def test_every_layer_answers_as_that_of_the_quantised_graph(
    network: Any,
    graph: OnnxGraph,
    frames: CalibrationFrames,
    prepared: dict[str, OnnxGraph],
    target: str,
    tmp_path: Path,
) -> None:
    """Layer by layer on the engine's own values: over the whole depth, a random network magnifies every difference."""
    image = preprocess(structured(1, SIZE, seed=4)[0], network.spec.input)
    student = student_of(network, prepared[target])
    brought = replace(graph, learned={**student.learned(), "step": 0})
    model = onnx.load(QUANTIZERS[target](brought, frames, recipe_of(target), tmp_path).path)
    read = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    byte_of = {node.name: read[node.output[0]] for node in pairs}
    wanted = answers(model, image, [*TASKS, *byte_of.values()])
    scales = student._scales()
    off: dict[str, float] = {}

    def compared(name: str, value: torch.Tensor) -> torch.Tensor:
        pair, rounded_by_engine = student.replay.pairs[name], torch.from_numpy(wanted[byte_of[name]])
        found = rounded(value, scales[name], pair.zero, pair.lowest, pair.highest)
        steps = ((found - rounded_by_engine) / scales[name]).abs()
        # Sums are added up in another order: a value between two integers may go to the other one.
        assert steps.max() < 1.5, name
        off[name] = float((steps > 0.5).float().mean())
        return rounded_by_engine

    with torch.no_grad():
        found = student.replay.run(torch.from_numpy(image), *inner(student), compared)
    assert len(off) == len(pairs)
    # Halfway between two pixels of bytes lies, often, halfway between two integers.
    assert {name: share for name, share in off.items() if share > (0.03 if "Resize" in name else 2e-3)} == {}
    for task, raw in zip(TASKS, found, strict=True):
        np.testing.assert_allclose(raw.numpy(), wanted[task], rtol=1e-4, atol=1e-4)


@each_target
def test_it_rounds_in_the_places_of_the_exported_graph(
    network: Any, prepared: dict[str, OnnxGraph], target: str
) -> None:
    model = onnx.load(prepared[target].path)
    student = student_of(network, prepared[target])
    places = [node.name for node in model.graph.node if node.op_type == "QuantizeLinear"]
    seen: list[str] = []
    image = torch.from_numpy(preprocess(structured(1, SIZE)[0], network.spec.input))
    student.replay.run(image, *inner(student), lambda name, value: (seen.append(name), value)[1])
    assert seen == places
    assert len(places) > 80
    in_int8 = {n.name for n in model.graph.node if n.op_type == "Conv" and "DequantizeLinear" in n.input[1]}
    assert {name for name, layer in student.replay.layers.items() if layer.reads} == in_int8


def inner(student: Student) -> tuple[Any, Any]:
    constants = {name: torch.from_numpy(array.copy()) for name, array in student.replay.constants.items()}
    with torch.no_grad():
        return constants, student._layers(student._scales())


@each_target
def test_what_it_has_learned_is_in_the_graph_exported_then(
    network: Any,
    graph: OnnxGraph,
    frames: CalibrationFrames,
    prepared: dict[str, OnnxGraph],
    target: str,
    tmp_path: Path,
) -> None:
    student = student_of(network, prepared[target])
    with torch.no_grad():
        student.moved.copy_(torch.linspace(-0.3, 0.3, len(student.moved)))
    brought = replace(graph, learned={**student.learned(), "step": 7})
    made = QUANTIZERS[target](brought, frames, recipe_of(target), tmp_path)
    before, after = onnx.load(prepared[target].path), onnx.load(made.path)
    assert [node.name for node in after.graph.node] == [node.name for node in before.graph.node]
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    scales = student._scales()
    pairs = [node for node in after.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(scales)
    for node in pairs:
        assert arrays[node.input[1]] == np.float32(scales[node.name].item()), node.name
        assert arrays[node.input[2]] == student.replay.pairs[node.name].zero, node.name
    assert made.calibration is not None
    assert made.calibration["learned"] == {"data": "structured", "steps": 7}


def test_gradients_reach_weights_and_scales(network: Any, prepared: dict[str, OnnxGraph]) -> None:
    student = student_of(network, prepared["onnxruntime-int8"])
    image = torch.from_numpy(preprocess(structured(1, SIZE)[0], network.spec.input))
    sum(maps.square().mean() for maps in student(image).values()).backward()
    try:
        assert student.moved.grad is not None
        assert (student.moved.grad != 0).float().mean() > 0.9
        unmoved = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        # The fusion of CTAL stays, and what serves training alone is not in the graph.
        assert unmoved
        assert all("spatial_att.fusion" in name or name.startswith("initial_task") for name in unmoved), unmoved
        assert {name for name in unmoved if "layers" in name} == set()
    finally:
        network.zero_grad()


def test_an_unknown_node_is_refused(graph: OnnxGraph) -> None:
    model = onnx.load(graph.path)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softsign"
    with pytest.raises(ExportError, match=r"'backbone.*' \(Softsign\) cannot be fine-tuned with --qat"):
        Replay(model)


def test_a_layer_that_the_network_has_not_is_refused(network: Any) -> None:
    with pytest.raises(
        ExportError, match=r"'backbone\.nowhere' of the graph is no convolution of the network 'tiny'"
    ) as e:
        Ties(network, {"backbone.nowhere"})
    assert "export with calibrated int8 alone" in str(e.value)
