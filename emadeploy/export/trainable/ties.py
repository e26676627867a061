"""The weights of a deployed network as functions of the trained one's, so that training the one trains the other.

Batch norms are folded with the statistics that they have: those stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from emadeploy.contract.errors import ExportError
from emadeploy.export import rewrites
from emadeploy.nets.network import Network


class Ties:
    """What `deploy.exact` makes of the convolutions of ``network`` at the paths ``layers``, gradients and all.

    Raises ExportError for a path where the network has no convolution.
    """

    def __init__(self, network: Network, layers: Collection[str]) -> None:
        norms = {
            id(getattr(parent, conv)): getattr(parent, norm)
            for parent, conv, norm in rewrites.convolutions_with_norm(network)
        }
        self._layers: dict[str, tuple[rewrites.Convolution, nn.BatchNorm2d | None]] = {}
        modules = dict(network.named_modules())
        for path in layers:
            conv = modules.get(path)
            if not isinstance(conv, rewrites.Convolution):
                raise ExportError(
                    f"layer {path!r} of the graph is no convolution of the network {network.spec.name!r}: it cannot be "
                    "fine-tuned with --qat; export with calibrated int8 alone"
                )
            self._layers[path] = conv, norms.get(id(conv))

    def weights(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return weight (O, I, h, w) and bias (O,), float32, of each layer, as they stand now."""
        return {path: _deployed(conv, norm) for path, (conv, norm) in self._layers.items()}


def _deployed(conv: rewrites.Convolution, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    weight, bias = (conv.weight, conv.bias) if norm is None else rewrites.folded_weights(conv, norm)
    weight, bias = weight.float(), None if bias is None else bias.float()
    if not isinstance(conv, nn.ConvTranspose2d):
        return weight, bias
    return rewrites.subpixel_weight(weight), None if bias is None else bias.repeat(4)
