"""From a PyTorch module to an ONNX file with stable names: ``heads.depth.0.conv1/Conv``.

PyTorch's exporter numbers what it makes, so one more layer renames half of the graph; and it writes the stack of every
call into it. Here each node is named by the path of the layer it came from, which is also the path in the checkpoint.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from emadeploy import __version__
from emadeploy.contract.errors import ExportError, first_line

OPSET = 18
"""The newest that ONNX Runtime 1.20, OpenVINO 2024 and TensorRT 10.3 (JetPack 6) all take."""
_IR_VERSION = 10
_SCOPES = "pkg.torch.onnx.name_scopes"


def to_onnx(module: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str]) -> onnx.ModelProto:
    """Return the graph of ``module`` called with ``example``, all extents as in this call; raises ExportError."""
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"torch {torch.__version__} cannot export the network: {first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    _name_by_layer(model.graph)
    _forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_by_layer(graph: onnx.GraphProto) -> None:
    """Name nodes ``layer/Op``, their results ``layer/Op_output`` and the constants they read ``layer/Op.1``."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    taken: set[str] = set()
    parameters = {tensor.name: tensor.name.removeprefix("network.") for tensor in graph.initializer}
    layer_of_result: dict[str, str] = {}
    for node in graph.node:
        # What belongs to no layer, or does not say, goes with the layer whose result it reads.
        layer = _layer(node) or layer_of_result.get(node.input[0]) or "graph"
        name = _unused(f"{layer}/{node.op_type}", taken)
        node.name = name
        for index, result in enumerate(node.output):
            layer_of_result[result] = layer
            if result and result not in fixed:
                renamed[result] = f"{name}_output" if len(node.output) == 1 else f"{name}_output_{index}"
        for index, operand in enumerate(node.input):
            if operand in parameters and operand not in renamed:
                # What the exporter calls val_123 is a shape, an axis or a scalar; it gets the name of its first reader.
                is_layers_own = "." in operand
                renamed[operand] = parameters[operand] if is_layers_own else f"{name}.{index}"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = renamed.get(value.name, value.name)


def _layer(node: onnx.NodeProto) -> str:
    """Return the path of the innermost layer that the node came from, '' for none or where the exporter is silent."""
    scopes: list[str] = next(
        (ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == _SCOPES), []
    )
    # The last scope is the operation itself, the first the wrapper, which has no name of its own.
    path = scopes[-2] if len(scopes) > 1 else ""
    return path.removeprefix("network.")


def _unused(name: str, taken: set[str]) -> str:
    count = 0
    unused = name
    while unused in taken:
        count += 1
        unused = f"{name}_{count}"
    taken.add(unused)
    return unused


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove stack traces and paths of this machine; what is left depends on the network alone."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.name = "emadeploy"
    model.producer_name, model.producer_version = "emadeploy", __version__
    model.ir_version = min(model.ir_version, _IR_VERSION)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the exporter's remarks about itself, such as torchvision not being there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
