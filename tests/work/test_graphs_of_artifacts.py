"""Graphs as files have them: two formats of one network agree, an independent count agrees, damage is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from networks import CONVOLUTIONS, PRODUCT, SIZE, insert_qdq, quantise, tiny_graph

from emadeploy.build import builder
from emadeploy.contract.errors import ArtifactError, BackendMissing
from emadeploy.work.artifact import read_work
from emadeploy.work.layers import work_of
from emadeploy.work.onnx_net import net_of, read_onnx
from emadeploy.work.openvino_net import read_openvino

H, W = SIZE
N = H * W // 4
#: Of the tiny network: its convolutions, the Gram matrix, and the product with it.
MACS = {
    CONVOLUTIONS[0]: 16 * N * 27,
    CONVOLUTIONS[1]: 16 * N * 16 * 9,
    "ctal/MatMul_gram": 16 * 16 * N,
    PRODUCT: 16 * 16 * N,
    CONVOLUTIONS[2]: N * 16,
}
IMAGE = np.random.default_rng(1).uniform(0, 1, (1, 3, H, W)).astype(np.float32)


def test_onnx_and_openvino_agree_on_one_network(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph = tiny_graph(tmp_path / "graph")
    builder("openvino")(graph, tmp_path / "ov", "openvino-fp32")
    builder("onnxruntime")(graph, tmp_path / "ort", "onnxruntime-fp32")
    ours, theirs = read_work(tmp_path / "ort"), read_work(tmp_path / "ov")
    assert {layer.name: layer.macs for layer in ours.layers} == MACS
    # OpenVINO has biases as sums, which are fused, so nothing else is left.
    assert {layer.name: layer.macs for layer in theirs.layers} == MACS
    assert [(layer.kind, layer.reads, layer.writes) for layer in theirs.layers] == [
        (layer.kind, layer.reads, layer.writes) for layer in ours.layers
    ]
    assert ours.activation_bytes == theirs.activation_bytes
    assert {layer.precision for layer in (*ours.layers, *theirs.layers)} == {"fp32"}


def test_rounded_networks_are_bytes_in_both_formats(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph = tiny_graph(tmp_path / "ov")
    quantise(graph, IMAGE, leave=[CONVOLUTIONS[2]])
    theirs = {
        layer.name.removesuffix("/WithoutBiases"): layer for layer in work_of(read_openvino(graph.ir_path)).layers
    }
    graph = tiny_graph(tmp_path / "ort")
    insert_qdq(graph, IMAGE, leave=[CONVOLUTIONS[2]])
    ours = {layer.name: layer for layer in work_of(read_onnx(graph.path)).layers}
    for found in (ours, theirs):
        precisions = {name: layer.precision for name, layer in found.items() if layer.macs}
        assert precisions == {**dict.fromkeys(MACS, "int8"), CONVOLUTIONS[2]: "fp32"}
        assert {name: layer.macs for name, layer in found.items() if layer.macs} == MACS


def test_bf16_is_what_the_manifest_says(tmp_path: Path, make_artifact: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    graph = tiny_graph(tmp_path / "graph")
    builder("openvino")(graph, tmp_path / "ov", "openvino-fp32")
    floats = work_of(read_openvino(tmp_path / "ov" / "model.xml"))
    halves = work_of(read_openvino(tmp_path / "ov" / "model.xml"), rest="bf16")
    assert {layer.precision for layer in halves.layers} == {"bf16"}
    assert halves.weight_bytes == floats.weight_bytes // 2


def test_the_arithmetic_is_what_pytorch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from emadeploy.export.trace import to_onnx

    class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.each = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.last = torch.nn.Conv2d(4, 2, 1)

        def forward(self, image):  # type: ignore[no-untyped-def]
            feat = torch.relu(self.each(torch.relu(self.first(image))))
            flat = feat.flatten(2)
            attended = (flat @ flat.transpose(1, 2)) @ flat
            return self.last(self.up(attended.view_as(feat) + feat))

    network, image = Small().eval(), torch.zeros(1, 3, 12, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    work = work_of(net_of(to_onnx(network, image, "image", ["out"])))
    assert 2 * work.macs == counter.get_total_flops()


def test_an_altered_graph_is_refused(make_artifact: Callable[..., Path]) -> None:
    artifact = make_artifact()
    assert read_work(artifact).macs > 0
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match=r"model\.onnx has \d+ bytes"):
        read_work(artifact)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match=r"model\.onnx is not an ONNX graph"):
        read_onnx(tmp_path / "model.onnx")
    for text in ("<net", "<net><layers><layer id='0' type='MatMul' name='m'/></layers></net>", "<net/>"[:3]):
        (tmp_path / "model.xml").write_text(text)
        with pytest.raises(ArtifactError, match=r"model\.xml is not a network of OpenVINO"):
            read_openvino(tmp_path / "model.xml")


def test_without_the_package_the_message_has_the_line_that_installs_it(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact()
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "emadeploy.work.onnx_net")
    with pytest.raises(BackendMissing, match=r"needs onnx.*emadeploy\[export\]"):
        read_work(artifact)
