"""A graph that takes frames, cut where the image enters the network and where its raw maps leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from emadeploy.build.triton_batches import batched
from emadeploy.contract.branches import branch_of
from emadeploy.contract.errors import BuildError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.spec import TensorSpec


@dataclass(frozen=True)
class Part:
    """A part of a graph: 'frame', 'network' or 'maps', with the tensors that it takes and answers."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: onnx.ModelProto

    def write(self, folder: Path) -> None:
        """Write ``model.onnx`` into ``folder``."""
        onnx.save(self.model, folder / "model.onnx")

    def write_batched(self, folder: Path) -> None:
        """Write ``model.onnx`` for any number of frames (`triton_batches`) into ``folder``."""
        onnx.save(batched(self.model), folder / "model.onnx")


def cut(graph: Path, manifest: Manifest) -> tuple[Part, Part, Part]:
    """Return the parts of the graph of ``manifest``, in their order; raises BuildError where it cannot be cut in two.

    Nodes are told apart by their names: ``frame/...`` makes the image, ``decode.TASK/...`` the maps.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(graph), strict_mode=True)
    before, after = _is_before, _is_after
    images = _crossing(model, before, lambda name: not before(name))
    raws = _crossing(model, lambda name: not after(name), after)
    if len(images) != 1 or len(raws) != len(manifest.outputs):
        raise BuildError(
            f"{graph} cannot be cut into frame, network and maps: {len(images)} tensors enter the network and "
            f"{len(raws)} leave it, for {len(manifest.outputs)} tasks. Export it again, or without --frame-size"
        )
    shapes = {value.name: value for value in model.graph.value_info}
    image = tuple(_spec(shapes[name]) for name in images)
    maps = tuple(_spec(shapes[name]) for name in raws)
    extractor = onnx.utils.Extractor(model)

    def part(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Part:
        names = ([spec.name for spec in specs] for specs in (inputs, outputs))
        made = extractor.extract_model(*names)
        onnx.checker.check_model(made)
        return Part(name, inputs, outputs, made)

    return (
        part("frame", manifest.inputs, image),
        part("network", image, maps),
        part("maps", maps, manifest.outputs),
    )


def _is_before(node: str) -> bool:
    return branch_of(node) == "frame"


def _is_after(node: str) -> bool:
    return node.startswith("decode.")


def _crossing(model: onnx.ModelProto, left: Callable[[str], bool], right: Callable[[str], bool]) -> list[str]:
    """Return the tensors that a node on the ``left`` makes and one on the ``right`` takes, each once."""
    made = {tensor for node in model.graph.node if left(node.name) for tensor in node.output}
    taken = (tensor for node in model.graph.node if right(node.name) for tensor in node.input)
    return list(dict.fromkeys(tensor for tensor in taken if tensor in made))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(extent.dim_value for extent in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(value.name, shape, dtype, "BCHW" if len(shape) == 4 else "?" * len(shape))
