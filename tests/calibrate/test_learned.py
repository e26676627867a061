"""Learned ranges: where they go, and where they do not belong."""

from dataclasses import replace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emadeploy.calibrate.insert import tensors_of
from emadeploy.calibrate.learned import Learned, learned_for, structure_of
from emadeploy.calibrate.learning import check_target, learning_of
from emadeploy.calibrate.placement import place_for_tensorrt
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.contract.errors import CalibrationError, SpecError
from emadeploy.contract.plain import to_plain

RECIPE = load_recipe("trt-int8").resolved()


def chain(*, framed: bool = False, weight: float = 1.0, layers: int = 2) -> onnx.ModelProto:
    """Return image -> convolutions -> y; or the same behind a scaling of frames."""
    import numpy as np

    given = "frame" if framed else "image"
    nodes, read = [], given
    if framed:
        nodes.append(helper.make_node("Mul", ["frame", "scale"], ["frame/Mul_output"], name="frame/Mul"))
        read = "frame/Mul_output"
    for index in range(layers):
        made = "y" if index == layers - 1 else f"heads.depth.{index}/Conv_output"
        nodes.append(helper.make_node("Conv", [read, f"w{index}"], [made], name=f"heads.depth.{index}/Conv"))
        read = made
    arrays = {f"w{index}": np.full((2, 2, 1, 1), weight, np.float32) for index in range(layers)}
    arrays["scale"] = np.ones(1, np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, 4, 4)) for name in (given, "y")]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def record(model: onnx.ModelProto, **changes: Any) -> dict[str, Any]:
    """Return what a checkpoint says that was fine-tuned on ``model``."""
    ranges = {"image": [-2.0, 2.0], "heads.depth.0/Conv_output": [-1.0, 1.0]}
    data = {"target": "trt-int8", "recipe": to_plain(RECIPE), "structure": structure_of(model), "ranges": ranges}
    return {**data, "facts": {"data": "made"}, "step": 9, **changes}


def test_every_rounded_tensor_gets_its_range() -> None:
    model = chain()
    placement = place_for_tensorrt(model)
    learned = Learned.of(record(model))
    found = learned.ranges_of(model, placement, RECIPE)
    assert set(found) == set(tensors_of(model, placement))
    assert found == {"image": (-2.0, 2.0), "heads.depth.0/Conv_output": (-1.0, 1.0)}
    assert learned.facts == {"data": "made", "steps": 9}


def test_weights_and_frames_in_the_graph_make_no_other_structure() -> None:
    model = chain()
    framed = chain(framed=True, weight=3.0)
    assert structure_of(framed) == structure_of(model)
    found = Learned.of(record(model)).ranges_of(framed, place_for_tensorrt(framed), RECIPE)
    assert found["frame/Mul_output"] == (-2.0, 2.0)


def test_another_structure_is_refused() -> None:
    learned = Learned.of(record(chain()))
    longer = chain(layers=3)
    with pytest.raises(CalibrationError, match=r"rounds 'heads\.depth\.1/Conv_output' on one side alone"):
        learned.ranges_of(longer, place_for_tensorrt(longer), RECIPE)
    strided = chain()
    strided.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 1]))
    with pytest.raises(CalibrationError, match="learned on another graph: other tasks"):
        learned.ranges_of(strided, place_for_tensorrt(strided), RECIPE)


def test_other_integers_are_refused() -> None:
    model = chain()
    with pytest.raises(
        CalibrationError, match="learned for weights 'per_channel', and this export is for 'per_tensor'"
    ):
        Learned.of(record(model)).ranges_of(model, place_for_tensorrt(model), replace(RECIPE, weights="per_tensor"))


@pytest.mark.parametrize(
    "ranges", [None, {"image": [1.0]}, {"image": ["a", "b"]}, {"image": [float("nan"), 1.0]}, {"image": [1.0, 2.0]}]
)
def test_damaged_ranges_are_refused(ranges: Any) -> None:
    with pytest.raises(CalibrationError, match="fine-tune again from this checkpoint with --qat"):
        Learned.of(record(chain(), ranges=ranges))


def test_ranges_are_for_their_target_alone() -> None:
    class Graph:
        learned: Any = record(chain())

    graph: Any = Graph()
    assert learned_for(graph, RECIPE) is not None
    assert learned_for(graph, load_recipe("onnxruntime-int8")) is None
    graph.learned = None
    assert learned_for(graph, RECIPE) is None


def test_targets_that_can_be_fine_tuned_for() -> None:
    assert check_target("ort-int8") == "onnxruntime-int8"
    assert check_target("trt-rtx-int8") == "trt-rtx-int8"
    with pytest.raises(SpecError, match="NNCF places OpenVINO's"):
        check_target("openvino-int8")
    with pytest.raises(SpecError, match="it has no integers"):
        check_target("trt-fp16")


def test_a_graph_that_no_run_made_is_refused(emanet: Any) -> None:
    with pytest.raises(CalibrationError, match="holds no graph to fine-tune"):
        learning_of(emanet)
