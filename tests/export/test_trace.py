"""Names of nodes and tensors, and errors of the exporter."""

import pytest
import torch
from torch import Tensor, nn

from emadeploy.contract.errors import ExportError
from emadeploy.export.trace import to_onnx


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        one, two = self.network(image).relu().split(2, dim=1)
        return one + 1, two.reshape(2, -1)


def test_names() -> None:
    model = to_onnx(Small(), torch.zeros(1, 3, 2, 2), "image", ("one", "two"))
    nodes = {node.name: node for node in model.graph.node}
    assert list(nodes)[:3] == ["0/Conv", "1/Relu", "2/Conv"]
    assert list(nodes["2/Conv"].input) == ["1/Relu_output", "2.weight", "2.bias"]
    # What belongs to no layer goes with the layer whose result it reads.
    assert list(nodes)[3:] == ["2/Relu", "2/Split", "2/Add", "2/Reshape"]
    assert list(nodes["2/Split"].output) == ["2/Split_output_0", "2/Split_output_1"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "one", "two"]
    # Constants are named by the node that reads them.
    assert "2/Reshape.1" in {weight.name for weight in model.graph.initializer}
    assert model.producer_name == "emadeploy"


def test_what_torch_cannot_export() -> None:
    class Branching(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor]:
            return (image if image.sum() > 0 else -image,)

    with pytest.raises(ExportError, match=r"torch .* cannot export the network: "):
        to_onnx(Branching(), torch.zeros(1, 3, 2, 2), "image", ("one",))
