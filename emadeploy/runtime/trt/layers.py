"""The layers of a compiled engine: which nodes of the graph each computes, and in what precision.

The engine inspector tells it where a GPU is. Without one, TensorRT for RTX can build and not inspect; but the builder
lists the same layers in its log, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Kinds of layers that multiply: convolutions and matrix products, as TensorRT's back ends call them.
_COMPUTE = re.compile(r"correlation|gemm|conv|matrixmultiply|fullyconnected|fmha|attention", re.IGNORECASE)
#: Those of them whose second factor is their weights; what else they read is added, as the residual of a fused Add is.
_WEIGHTED = re.compile(r"correlation|conv|fullyconnected", re.IGNORECASE)
#: Nodes that do so, by the operator at the end of their names: 'heads.depth.conv/Conv'.
_PRODUCT = re.compile(r"/(?:Conv|ConvTranspose|MatMul|Gemm)(?:_\w+)?$")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_QDQ = re.compile(r"(?:Quantize|Dequantize)Linear(?:_\w+)?$")
#: What TensorRT calls a type, in the order of the search: "... Int8 format", "Half", "Channel major FP16 format ...".
_TYPES = {
    "uint8": "uint8",
    "int8": "int8",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "fp16": "fp16",
    "half": "fp16",
    "fp8": "fp8",
    "fp32": "fp32",
    "float": "fp32",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], .*Metadata:(?P<metadata>.*)"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    ``kind`` is TensorRT's word for it, ``nodes`` the graph's nodes that it computes. ``precision`` is 'int8', 'fp16',
    'fp32'..., that in which a convolution or product multiplies; 'unknown' where TensorRT does not tell.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str
    compute: bool


def from_inspector(found: Iterable[Mapping[str, Any]]) -> list[EngineLayer]:
    """Return the layers that the inspector tells of, each as its json says."""
    layers = []
    for layer in found:
        inputs = [_datatype(tensor) for tensor in layer.get("Inputs", ())]
        constants = [_datatype(tensor) for tensor in layer.get("Constants", ())]
        weights = layer.get("Weights")
        if isinstance(weights, Mapping) and weights.get("Count", 1):
            constants.insert(0, str(weights.get("Type", "")))
        outputs = [_datatype(tensor) for tensor in layer.get("Outputs", ())]
        name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
        layers.append(_layer(name, kind, str(layer.get("Metadata", "")), inputs, constants, outputs))
    return _settled(layers)


def from_log(text: str) -> list[EngineLayer]:
    """Return the layers that a build with detail listed in its log."""
    layers = []
    for match in filter(None, map(_LINE.match, text.split("\n"))):  # splitlines would split at control characters, too
        types = (_DATATYPE.findall(match[part]) for part in ("inputs", "constants", "outputs"))
        layers.append(_layer(match["name"], match["kind"], match["metadata"], *types))
    return _settled(layers)


def _layer(
    name: str, kind: str, metadata: str, inputs: list[str], constants: list[str], outputs: list[str]
) -> EngineLayer:
    nodes = [node for node in _NODE.findall(metadata) if not _QDQ.search(node)]
    # Older versions name a fused layer by its nodes.
    nodes = nodes or [part for part in re.split(r" \+ | \|\| ", name) if "/" in part and not _QDQ.search(part)]
    compute = bool(_COMPUTE.search(kind))
    if compute:
        # Two factors: an input and weights, or two inputs. It multiplies in bytes if both are bytes.
        read = inputs[:1] if constants and _WEIGHTED.search(kind) else inputs[:2]
        factors = [_precision(found) for found in [*read, *constants[:1]][:2]]
        precision = next((found for found in factors if found != "int8"), "int8" if factors else "unknown")
    else:
        precision = _precision((inputs or outputs or [""])[0])
    return EngineLayer(name, kind, tuple(dict.fromkeys(nodes)), precision, compute)


def _settled(layers: list[EngineLayer]) -> list[EngineLayer]:
    """Leave out what computes nothing, and take a fused kernel for a product where no layer of its own computes it."""
    products = {node for layer in layers if layer.compute for node in layer.nodes}
    settled = []
    for layer in layers:
        if layer.precision == "unknown" and not layer.nodes:
            continue  # streams that wait for each other
        alone = [node for node in layer.nodes if _PRODUCT.search(node) and node not in products]
        if alone and not layer.compute:
            products.update(alone)
            layer = EngineLayer(layer.name, layer.kind, layer.nodes, layer.precision, compute=True)
        settled.append(layer)
    return settled


def _datatype(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")


def _precision(datatype: str) -> str:
    lower = datatype.lower()
    return next((ours for theirs, ours in _TYPES.items() if theirs in lower), "unknown")
