"""Tiny graphs with the names of a network's layers, for the tests of engines: a backbone, attention and one head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec, TensorSpec

SIZE = (32, 64)
CONVOLUTIONS = ("backbone.conv1/Conv", "backbone.conv2/Conv", "heads.depth.conv/Conv")
PRODUCT = "ctal/MatMul"


def tiny_graph(folder: Path, **fields: Any) -> OnnxGraph:
    """Write image -> two convolutions -> (C, N) x (N, C) x (C, N) -> a convolution -> depth into ``folder``."""
    H, W = SIZE
    rng = np.random.default_rng(5)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1"], ["a"], pads=[1] * 4, strides=[2, 2], name=CONVOLUTIONS[0]),
        node("Relu", ["a"], ["b"], name="backbone.conv1/Relu"),
        node("Conv", ["b", "w2"], ["c"], pads=[1] * 4, name=CONVOLUTIONS[1]),
        node("Relu", ["c"], ["d"], name="backbone.conv2/Relu"),
        node("Reshape", ["d", "flat"], ["values_CN"], name="ctal/Reshape"),
        node("Transpose", ["values_CN"], ["keys_NC"], perm=[0, 2, 1], name="ctal/Transpose"),
        node("MatMul", ["values_CN", "keys_NC"], ["gram_CC"], name="ctal/MatMul_gram"),
        node("MatMul", ["gram_CC", "values_CN"], ["attended_CN"], name=PRODUCT),
        node("Reshape", ["attended_CN", "square"], ["e"], name="ctal/Reshape_1"),
        node("Conv", ["e", "w3"], ["f"], name=CONVOLUTIONS[2]),
        node("Relu", ["f"], ["depth"], name="heads.depth/Relu"),
    ]
    constants = [
        weight("w1", 16, 3, 3, 3),
        weight("w2", 16, 16, 3, 3),
        weight("w3", 1, 16, 1, 1),
        numpy_helper.from_array(np.array([1, 16, H * W // 4], np.int64), "flat"),
        numpy_helper.from_array(np.array([1, 16, H // 2, W // 2], np.int64), "square"),
    ]
    given, answered = (1, 3, H, W), (1, 1, H // 2, W // 2)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, given)],
            [helper.make_tensor_value_info("depth", TensorProto.FLOAT, answered)],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "folder": folder,
        "model": ModelSpec("tiny", "hps", (TaskSpec("depth"),), InputSpec(H, W)),
        "opset": 17,
        "ctal": None,
        "rewrites": (),
        "branches": ("backbone", "ctal", "heads.depth"),
        "inputs": (TensorSpec("image", given, "float32", "BCHW"),),
        "outputs": (TensorSpec("depth", answered, "float32", "BCHW"),),
        "source": {"model": "tiny", "untrained": True},
    }
    graph = OnnxGraph(**{**values, **fields})
    onnx.save(model, graph.path)
    graph.write()
    return graph


def quantise(graph: OnnxGraph, image: np.ndarray[Any, Any], leave: Sequence[str] = ()) -> None:
    """Put the quantised OpenVINO form beside the graph, all but the convolutions and products named in ``leave``.

    Symmetric ranges as ``image`` has them: per tensor, weights per channel.
    """
    import openvino as ov
    from openvino import opset13 as ops

    from emadeploy.runtime.backends.openvino import CORE

    network = CORE.read_model(graph.path)
    chosen = [
        operation
        for operation in network.get_ordered_ops()
        if operation.get_type_name() in ("Convolution", "MatMul") and operation.get_friendly_name() not in leave
    ]
    values = [operation.input_value(index) for operation in chosen for index in (0, 1)]
    results = CORE.compile_model(ov.Model(values, network.get_parameters()), "CPU")(image)
    for index, output in enumerate(values):
        operation, place = chosen[index // 2], index % 2
        weights = operation.get_type_name() == "Convolution" and place == 1
        largest = np.abs(results[index]).max(axis=(1, 2, 3) if weights else None, keepdims=True)
        high, low = (ops.constant(sign * largest.astype(np.float32)) for sign in (1, -1))
        faked = ops.fake_quantize(output, low, high, low, high, 255)
        operation.input(place).replace_source_output(faked.output(0))
    network.validate_nodes_and_infer_types()
    ov.save_model(network, str(graph.ir_path), compress_to_fp16=False)
    graph.write()


def insert_qdq(graph: OnnxGraph, image: np.ndarray[Any, Any], leave: Sequence[str] = ()) -> None:
    """Replace the graph by one with Q/DQ as ONNX Runtime's own quantizer puts them, none around nodes in ``leave``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        frames = iter([{"image": image}])

        def get_next(self) -> Any:
            return next(self.frames, None)

    quantize_static(
        str(graph.path),
        str(graph.path),
        Once(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(leave),
    )
    graph.write()
