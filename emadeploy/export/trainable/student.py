"""A network under fake quantisation: the graph that an engine would get, on live weights and on scales that learn.

Shape suffixes: B batch, H x W the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from emadeploy.export.trainable.replay import Pair, Replay
from emadeploy.export.trainable.rounding import least_scale, rounded, rounded_bias, rounded_weight
from emadeploy.export.trainable.ties import Ties
from emadeploy.nets.network import Network
from emadeploy.nets.quantised import QuantisedNetwork


class Student(QuantisedNetwork):
    """``network`` as the quantised graph ``model`` of its exact form computes it.

    Activations are rounded where ``model`` has Q/DQ, on scales that are learned from those that it has; convolutions
    run on the network's own weights, batch norms folded, rounded as they stand: the largest of each channel is the
    largest integer. What else the graph holds, such as the fusion of CTAL, stays as it is.

    Args:
        groups: QuantizeLinear of the graph -> what shares one scale with it.
        largest: the largest integer of a weight. symmetric: whether 0 is the middle of activations' integers.
        facts: what `learned` says beside the ranges.

    Raises ExportError for a graph that cannot be trained.
    """

    start: Tensor

    def __init__(
        self,
        network: Network,
        model: onnx.ModelProto,
        groups: Mapping[str, str],
        *,
        largest: int,
        symmetric: bool,
        facts: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.network, self.facts, self.largest, self.symmetric = network, dict(facts), largest, symmetric
        self.replay = Replay(model)
        self._ties = Ties(network, {layer.path for layer in self.replay.layers.values()})
        self._group_of = {name: groups[name] for name in self.replay.pairs}
        self._leaders = _leaders(self.replay.pairs.values(), self._group_of)
        self._place = {group: index for index, group in enumerate(self._leaders)}
        self.register_buffer("start", torch.tensor([pair.scale for pair in self._leaders.values()]))
        #: How far each scale has moved from where it started, as a logarithm.
        self.moved = nn.Parameter(torch.zeros(len(self._leaders)))
        self._constants = {name: f"constant_{index}" for index, name in enumerate(self.replay.constants)}
        for name, buffer in self._constants.items():
            # Not part of the state: they are the graph's.
            self.register_buffer(buffer, torch.from_numpy(self.replay.constants[name].copy()), persistent=False)

    def scales(self) -> Iterable[nn.Parameter]:
        """Return the one parameter that holds them all."""
        return [self.moved]

    def learned(self) -> dict[str, Any]:
        """Return the facts and the 'ranges' by group, (low, high): exactly those that have these scales."""
        ranges = {}
        for (group, pair), scale in zip(self._leaders.items(), self._steps().tolist(), strict=True):
            low, high = self._ends(pair)
            ranges[group] = [low * scale, high * scale]
        return {**self.facts, "ranges": ranges}

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return the raw map of each task, (B, C, H, W), float32. The graph is for one image: they go one by one."""
        scales = self._scales()
        layers = self._layers(scales)
        constants = {name: getattr(self, buffer) for name, buffer in self._constants.items()}

        def round_pair(name: str, value: Tensor) -> Tensor:
            pair = self.replay.pairs[name]
            return rounded(value, scales[name], pair.zero, pair.lowest, pair.highest)

        answers = [self.replay.run(image, constants, layers, round_pair) for image in image_B3HW.split(1)]
        maps = [torch.cat(maps) for maps in zip(*answers, strict=True)]
        return dict(zip(self.replay.outputs, maps, strict=True))

    def _steps(self) -> Tensor:
        return self.start * self.moved.exp()

    def _scales(self) -> dict[str, Tensor]:
        """Return the scale of each QuantizeLinear: its group's, or, for products' signed side, what covers the same."""
        steps = self._steps().unbind()
        scales = {}
        for name, pair in self.replay.pairs.items():
            group = self._group_of[name]
            leader, step = self._leaders[group], steps[self._place[group]]
            if pair.signed != leader.signed:
                magnitude = max(map(abs, self._ends(leader)))
                step = (step.double() * magnitude / self.largest).float()
            scales[name] = step
        return scales

    def _layers(self, scales: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return weight and bias of each convolution in int8, by its node, as its integers say."""
        live = self._ties.weights()
        layers: dict[str, tuple[Tensor, Tensor | None]] = {}
        for node, layer in self.replay.layers.items():
            weight, bias = live[layer.path]
            if layer.reads is not None:
                read = scales[layer.reads]
                integral = bias if layer.rounds_bias else None
                least = None if integral is None else least_scale(integral, read, per_channel=layer.per_channel)
                weight, steps = rounded_weight(weight, self.largest, per_channel=layer.per_channel, least=least)
                bias = bias if integral is None else rounded_bias(integral, steps, read)
            layers[node] = weight, bias
        return layers

    def _ends(self, pair: Pair) -> tuple[int, int]:
        """Return the ends of a range in steps: those from which `calibrate.insert.scale_of` finds the same scale."""
        if pair.signed:
            return -self.largest, self.largest
        if self.symmetric:
            return -_TOP, _TOP
        return pair.lowest - pair.zero, pair.highest - pair.zero


#: Steps of a symmetric byte to either side.
_TOP = 127


def _leaders(pairs: Iterable[Pair], group_of: Mapping[str, str]) -> dict[str, Pair]:
    """Return the pair whose scale each group learns: one of activations' own type before one of a product's."""
    leaders: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.signed, pair.name)):
        leaders.setdefault(group_of[pair.name], pair)
    return leaders
