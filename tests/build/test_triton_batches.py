"""A graph around a graph: any number of frames, each with the answers that it has alone."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
import onnxruntime as ort
from networks import SIZE, tiny_graph
from onnx import TensorProto, helper

from emadeploy.build.triton_batches import batched
from emadeploy.contract.spec import frame_shape


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_frame_has_the_answers_that_it_has_alone(tmp_path: Path, count: int) -> None:
    model = onnx.load(tiny_graph(tmp_path / "graph").path)
    alone, batch = session(model), session(batched(model))
    names = [output.name for output in alone.get_outputs()]
    assert [output.name for output in batch.get_outputs()] == names
    assert [given.name for given in batch.get_inputs()] == ["image"]
    images = np.random.default_rng(count).normal(0, 1, (count, 3, *SIZE)).astype(np.float32)
    found = batch.run(names, {"image": images})
    for index, image in enumerate(images):
        for answer, wanted in zip(found, alone.run(names, {"image": image[None]}), strict=True):
            np.testing.assert_array_equal(answer[index], wanted[0])


def test_tensors_of_other_ranks_get_an_axis_in_front() -> None:
    nodes = [
        helper.make_node("Cast", ["frame"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["wide"], ["brightest"], keepdims=0),
        helper.make_node("Identity", ["wide"], ["same"]),
    ]
    values = [helper.make_tensor_value_info("frame", TensorProto.UINT8, (4, 6, 3))]
    answers = [
        helper.make_tensor_value_info("same", TensorProto.FLOAT, (4, 6, 3)),
        helper.make_tensor_value_info("brightest", TensorProto.FLOAT, ()),
    ]
    graph = helper.make_graph(nodes, "frames", values, answers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    before = model.SerializeToString()
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    same, brightest = session(batched(model)).run(None, {"frame": frames})
    np.testing.assert_array_equal(same, frames)
    np.testing.assert_array_equal(brightest, frames.max(axis=(1, 2, 3)))
    assert model.SerializeToString() == before, "the graph that was given stays as it is"


def test_the_shape_of_one_frame() -> None:
    assert frame_shape((1, 13, 72, 96)) == (13, 72, 96)
    assert frame_shape((288, 384, 3)) == (288, 384, 3)
    assert frame_shape((288, 384)) == (288, 384)
