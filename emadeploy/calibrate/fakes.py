"""Passes over an OpenVINO graph with fake quantisation: move it to where it costs least, or take it out.

A *compute node* is a convolution or a matrix product. A *fake* is a FakeQuantize: it rounds a tensor to 256 levels, and
OpenVINO makes an int8 kernel of a compute node whose inputs all come from one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import openvino as ov
from openvino import opset13

from emadeploy.contract.errors import CalibrationError

COMPUTE = ("Convolution", "GroupConvolution", "MatMul")
#: What moves values and changes none: rounding before or after it is the same.
_MOVES = (
    "Concat",
    "DepthToSpace",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "StridedSlice",
    "Transpose",
    "Unsqueeze",
    "VariadicSplit",
)
#: What OpenVINO appends to the name of a convolution whose bias it has made an addition of.
_BIASLESS = "/WithoutBiases"


def compute_nodes(model: ov.Model) -> dict[str, ov.Node]:
    """Return the compute nodes by their names in the ONNX graph."""
    nodes = (node for node in model.get_ordered_ops() if node.get_type_name() in COMPUTE)
    return {node.get_friendly_name().removesuffix(_BIASLESS): node for node in nodes}


def depthwise_nodes(model: ov.Model) -> frozenset[str]:
    """Return the names of the convolutions that filter each channel by itself."""
    return frozenset(name for name, node in compute_nodes(model).items() if node.get_type_name() == "GroupConvolution")


def hoist(model: ov.Model) -> int:
    """Round the features of CTAL once, before they are shifted, and not once per shift; return how many fakes went.

    The exact keys are nine shifted copies of one map. NNCF rounds each by its own range; but the values are the same
    apart from the border, so one fake, with the widest of the ranges, before the padding serves all of them, and
    padding and shifting move bytes.
    """
    hoisted: dict[str, list[ov.Node]] = {}
    pads: dict[str, ov.Node] = {}
    for fake in _fakes(model):
        chain = list(_upstream(fake))
        pad = next((node for node in chain if node.get_type_name() == "Pad"), None)
        if pad is not None and len(_consumers(pad)) > 1:
            hoisted.setdefault(pad.get_friendly_name(), []).append(fake)
            pads[pad.get_friendly_name()] = pad
    for name, fakes in hoisted.items():
        widest = max(fakes, key=lambda fake: float(abs(fake.input_value(2).get_node().get_data()).max()))
        ranges = [widest.input_value(index) for index in range(1, 5)]
        rounded = opset13.fake_quantize(pads[name].input_value(0), *ranges, widest.get_attributes()["levels"])
        rounded.set_friendly_name(f"{name}/fq_input_0")
        pads[name].input(0).replace_source_output(rounded.output(0))
        for fake in fakes:
            _bypass(fake)
    model.validate_nodes_and_infer_types()
    return sum(map(len, hoisted.values()))


def release(model: ov.Model, keep: Collection[str]) -> None:
    """Take out the fakes of the compute nodes named by ``keep``, so that they run in floating point.

    A fake that another compute node needs as well stays; one between kept nodes, as before a sum, goes too. Raises
    CalibrationError for a name that is no compute node of the graph, and where a node would stay in int8 all the same,
    since it shares all of its inputs.
    """
    nodes = compute_nodes(model)
    unknown = sorted(set(keep) - set(nodes))
    if unknown:
        raise CalibrationError(f"to be kept in higher precision, but no layer of the graph: {', '.join(unknown[:5])}")
    kept = {nodes[name].get_friendly_name() for name in keep}
    for fake in list(_fakes(model)):
        readers = {node.get_friendly_name() for node in _readers(fake)}
        around = _computed_around(fake)
        if readers and (readers <= kept or (around and around <= kept)):
            _bypass(fake)
    for name in sorted(keep):
        if all(_source_fake(value) is not None for value in nodes[name].input_values()[:2]):
            raise CalibrationError(
                f"{name} cannot be kept in higher precision alone: layers in int8 read all of its inputs; keep them too"
            )
    model.validate_nodes_and_infer_types()


def compress_weights(model: ov.Model) -> None:
    """Store the weights that have a fake as int8, as OpenVINO's compiler would make them."""
    from openvino._offline_transformations import compress_quantize_weights_transformation

    compress_quantize_weights_transformation(model)


def _fakes(model: ov.Model) -> Iterator[ov.Node]:
    return (node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize")


def _consumers(node: ov.Node) -> list[ov.Node]:
    return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]


def _upstream(fake: ov.Node) -> Iterator[ov.Node]:
    """Yield the nodes that only move the values which ``fake`` rounds, nearest first."""
    node = fake.input_value(0).get_node()
    while node.get_type_name() in _MOVES and node.get_type_name() != "Concat":
        yield node
        node = node.input_value(0).get_node()


def _readers(fake: ov.Node) -> Iterator[ov.Node]:
    """Yield the compute nodes and others that read what ``fake`` rounded, through nodes that only move it."""
    for node in _consumers(fake):
        if node.get_type_name() in _MOVES:
            yield from _readers(node)
        else:
            yield node


def _computed_around(fake: ov.Node) -> set[str]:
    """Return the compute nodes whose results ``fake`` rounds, and those that read it: nearest, through all others."""
    found: set[str] = set()
    for neighbours in (lambda node: [value.get_node() for value in node.input_values()], _consumers):
        seen, left = set(), neighbours(fake)
        while left:
            node = left.pop()
            name = node.get_friendly_name()
            if name in seen:
                continue
            seen.add(name)
            if node.get_type_name() in COMPUTE:
                found.add(name)
            else:
                left += neighbours(node)
    return found


def _source_fake(value: ov.Output) -> ov.Node | None:
    """Return the fake that rounds ``value``, through nodes that only move it; ``None`` where there is none."""
    node = value.get_node()
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _bypass(fake: ov.Node) -> None:
    source = fake.input_value(0)
    for target in fake.output(0).get_target_inputs():
        target.replace_source_output(source)
