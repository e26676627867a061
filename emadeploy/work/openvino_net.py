"""An OpenVINO network (model.xml) as a :class:`Net`, read as the xml that it is: OpenVINO is not needed for it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from emadeploy.contract.errors import ArtifactError
from emadeploy.work.net import Net, Node, Tensor, folded

_TYPES = {
    "FP32": "fp32",
    "FP16": "fp16",
    "BF16": "bf16",
    "I8": "int8",
    "U8": "int8",
    "I32": "int32",
    "I64": "int64",
    "U64": "int64",
    "BOOL": "bool",
}
#: OpenVINO's name of an operation -> ONNX's, where another one is used here.
_OPS = {
    "Convolution": "Conv",
    "GroupConvolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose",
    "GroupConvolutionBackpropData": "ConvTranspose",
    "Convert": "Cast",
    "Interpolate": "Resize",
    "Multiply": "Mul",
    "Divide": "Div",
    "Subtract": "Sub",
    "ReLU": "Relu",
    "Maximum": "Max",
    "Minimum": "Min",
    "Clamp": "Clip",
    "Power": "Pow",
    "VariadicSplit": "Split",
    "StridedSlice": "Slice",
    "Broadcast": "Expand",
    "SoftMax": "Softmax",
}


def read_openvino(path: Path) -> Net:
    """Return the network in the file at ``path``, all of whose extents are fixed; raises ArtifactError otherwise."""
    try:
        root = ElementTree.parse(path).getroot()
        return _net(root)
    except (OSError, ElementTree.ParseError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a network of OpenVINO that can be read: {error!r}") from error


def _net(root: ElementTree.Element) -> Net:
    sources = {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): f"{edge.attrib['from-layer']}:{edge.attrib['from-port']}"
        for edge in root.iterfind("edges/edge")
    }
    tensors: dict[str, Tensor] = {}
    constants: set[str] = set()
    nodes: list[Node] = []
    inputs: list[str] = []
    outputs: list[str] = []
    for layer in root.iterfind("layers/layer"):
        number, kind = layer.attrib["id"], layer.attrib["type"]
        results = {f"{number}:{port.attrib['id']}": _tensor(port) for port in layer.iterfind("output/port")}
        operands = tuple(sources[number, port.attrib["id"]] for port in layer.iterfind("input/port"))
        tensors |= results
        if kind == "Parameter":
            inputs += results
        elif kind == "Result":
            outputs += operands
        # All extents are fixed, so a shape is a constant.
        elif kind in ("Const", "ShapeOf") or (operands and all(name in constants for name in operands)):
            constants.update(results)
            if operands and kind != "ShapeOf":
                tensors |= {name: folded(kind, tensors, operands, name) for name in results}
        else:
            nodes.append(_node(layer, kind, operands, tuple(results), tensors))
    if not outputs:
        raise ValueError("it answers nothing")
    return Net(tuple(nodes), tensors, tuple(inputs), tuple(outputs), frozenset(constants))


def _node(
    layer: ElementTree.Element,
    kind: str,
    operands: tuple[str, ...],
    results: tuple[str, ...],
    tensors: dict[str, Tensor],
) -> Node:
    data = layer.find("data")
    attributes = {} if data is None else data.attrib
    group = 1
    if kind.startswith("GroupConvolution"):
        # (groups, O / groups, I / groups, h, w), which is (O, I / groups, h, w) to ONNX.
        group, outer, *rest = tensors[operands[1]].shape
        tensors[operands[1]] = Tensor((group * outer, *rest), tensors[operands[1]].type)
    transposed = attributes.get("transpose_a", "false") == "true"
    return Node(layer.attrib["name"], _OPS.get(kind, kind), operands, results, group, transposed)


def _tensor(port: ElementTree.Element) -> Tensor:
    shape = tuple(int(extent.text or "") for extent in port.iterfind("dim"))
    if any(extent < 0 for extent in shape):
        raise ValueError(f"an extent of {shape} is not fixed")
    return Tensor(shape, _TYPES[port.attrib["precision"]])
