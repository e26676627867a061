"""From a trained network to the module that is exported: the rewrites put together.

Shape suffixes: B batch (always 1), C channels, H x W rows and columns of the image.

The deployed network is a copy of the trained one with some layers replaced in place, so that every layer keeps its path
(``backbone.0.conv1``, ``heads.depth.2``) and the graph's names lead back to the checkpoint's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from emadeploy.contract.errors import SpecError
from emadeploy.export import rewrites
from emadeploy.export.attention import ExactAttention
from emadeploy.export.basis_choice import Basis
from emadeploy.export.frame import Decode, FrameToImage, Resize
from emadeploy.export.pixel_major import PixelMajorAttention
from emadeploy.export.tiles import TileGather
from emadeploy.nets.ctal import CTAL, CrossTaskAttention
from emadeploy.nets.network import Network


class Deployed(nn.Module):
    """A network as it is exported, for one image or one frame: final maps alone, auxiliary predictions dropped.

    image (1, 3, H, W) float32 -> the raw map (1, C, H, W) of each of ``tasks``, in order; or, with a ``frame_size``,
    frame (H, W, 3) uint8 RGB -> decoded maps at the frame's size (`frame`).
    """

    def __init__(self, network: Network, tasks: Sequence[str], frame_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        spec = network.spec
        self.network, self.tasks = network, tuple(tasks)
        self.outputs = nn.ModuleDict({task: Resize(spec.input.size) for task in tasks})
        self.frame, self.decode = None, None
        if frame_size is not None:
            self.frame = FrameToImage(spec.input)
            self.decode = nn.ModuleDict({task: Decode(spec.task(task), frame_size) for task in tasks})

    def forward(self, image_or_frame: Tensor) -> tuple[Tensor, ...]:
        image_B3HW = image_or_frame if self.frame is None else self.frame(image_or_frame)
        small = self.network.predict(image_B3HW, auxiliary=False)
        raw = {task: self.outputs[task](small[task]) for task in self.tasks}
        if self.decode is None:
            return tuple(raw.values())
        return tuple(self.decode[task](raw[task]) for task in self.tasks)


def published(network: Network, *, form: str = "affinity") -> Network:
    """Return a copy of ``network`` for inference that computes CTAL as published, with N x N affinities.

    Exported as it stands, it is what to compare with, in accuracy and in speed. Another ``form`` is one of CTAL_FORMS.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for ctal in _ctals(network):
        ctal.spatial_att.form = form
    return network


def exact(network: Network, tasks: Sequence[str], *, tiled: bool) -> tuple[Network, tuple[str, ...]]:
    """Return a copy of ``network`` in deployment form that answers ``tasks``, and the rewrites applied, in words.

    ``tiled`` makes the sums over pixels in tiles (`tiles`): fewer multiplications, for float32 only. Without, CTAL has
    the layout of `pixel_major`, for int8 and float16.
    """

    def attention(trained: CrossTaskAttention) -> nn.Module:
        if tiled:
            return ExactAttention(trained, tasks, TileGather(trained.size))
        return PixelMajorAttention(trained, tasks)

    return _rewritten(
        network, tasks, attention, "affinities linear in pixels, " + ("tiles" if tiled else "pixel-major")
    )


def on_basis(network: Network, tasks: Sequence[str], bases: Mapping[str, Basis]) -> tuple[Network, tuple[str, ...]]:
    """Return the deployment form with the fusion kernels of each attention, by its path, on a basis; and the rewrites.

    An approximation, unless every task keeps nine kernels.
    """
    [basis] = bases.values()  # every network with CTAL has one

    def attention(trained: CrossTaskAttention) -> nn.Module:
        return PixelMajorAttention(trained, tasks, basis.kernels, basis.mixtures)

    ranks = ", ".join(f"{task} {rank}" for task, rank in basis.ranks.items())
    return _rewritten(network, tasks, attention, f"affinities linear in pixels, on a basis of kernels ({ranks})")


def _rewritten(
    network: Network, tasks: Sequence[str], attention: Callable[[CrossTaskAttention], nn.Module], described: str
) -> tuple[Network, tuple[str, ...]]:
    network = copy.deepcopy(network).eval().requires_grad_(False)
    network.add_module("heads", _only(tasks, network.heads))
    applied = ["batch norms folded"] if rewrites.fold_batch_norms(network) else []
    for ctal in _ctals(network):
        ctal.add_module("spatial_att", attention(ctal.spatial_att))
        ctal.conv_out = _only(tasks, ctal.conv_out)
        for task, layers in ctal.conv_out.items():
            ctal.conv_out[task] = rewrites.shuffled(layers)
        applied += [described, "transposed convolutions as pixel shuffles"]
    return network, tuple(applied)


def choose_tasks(known: Sequence[str], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the tasks to answer, in the network's order: all, or those asked for. Raises SpecError for others."""
    if asked is None:
        return tuple(known)
    for task in asked:
        if task not in known:
            raise SpecError(f"task {task!r} is unknown; the model has {', '.join(known)}")
    if not asked:
        raise SpecError(f"no task asked for; the model has {', '.join(known)}")
    return tuple(task for task in known if task in asked)


def _only(tasks: Sequence[str], layers: object) -> nn.ModuleDict:
    assert isinstance(layers, nn.ModuleDict)
    return nn.ModuleDict({task: layers[task] for task in tasks})


def _ctals(network: Network) -> list[CTAL]:
    return [module for module in network.modules() if isinstance(module, CTAL)]
