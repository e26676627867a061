"""Graphs compute what PyTorch computes; a graph that does not is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch

from emadeploy.build.graph import OnnxGraph
from emadeploy.contract.errors import ExportError
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.tasks import KINDS
from emadeploy.evaluate.parity import raw_error
from emadeploy.export import deploy, parity, trace
from emadeploy.export.stage import Wanted
from emadeploy.nets.network import Network

Exported = tuple[Network, OnnxGraph, onnx.ModelProto]
KIND_NAMES = tuple(KINDS)
FRAME_SIZE = (50, 90)


@pytest.mark.parametrize(
    ("network", "tasks", "wanted"),
    [
        ("m_emanet", ("semseg", "depth"), Wanted(tasks=("depth",))),
        ("stl", ("semseg", "depth"), Wanted(tasks=("depth",))),
        ("hps", KIND_NAMES, Wanted(frame_size=FRAME_SIZE)),
    ],
    ids=["m_emanet", "stl", "hps"],
)
def test_every_network(export: Callable[..., Exported], network: str, tasks: tuple[str, ...], wanted: Wanted) -> None:
    _, graph, model = export(network, tasks, wanted)
    onnx.checker.check_model(model, full_check=True)
    assert graph.parity.keys() == set(wanted.tasks or tasks)
    assert graph.ctal == ("exact" if network == "m_emanet" else None)
    for values in graph.parity.values():
        assert values.get("raw_error", values.get("decoded_error")) < 1e-4


def test_both_forms_agree(exact: Exported, affinity: Exported) -> None:
    for _, graph, _ in (exact, affinity):
        assert graph.parity.keys() == {"semseg", "depth"}
        assert all(0 < values["raw_error"] < 1e-5 for values in graph.parity.values())
        assert graph.parity["semseg"]["agreement"] > 99.9
        assert "as published" in graph.reference
    assert (exact[1].ctal, affinity[1].ctal) == ("exact", "affinity")
    # What the numbers stand for: the two graphs beside each other, without the function that measured them.
    spec = exact[1].model.input
    image = preprocess(parity.structured_frame(spec.size, seed=5), spec)
    one, two = (
        onnxruntime.InferenceSession(str(graph.path)).run(None, {"image": image}) for _, graph, _ in (exact, affinity)
    )
    assert max(map(raw_error, one, two)) < 1e-5
    assert one[0].shape == (1, 13, *spec.size)


def test_the_graph_is_fixed_by_the_network_alone(export: Callable[..., Exported]) -> None:
    network, graph, model = export("stl", ("semseg", "depth"), Wanted(tasks=("depth",)))
    deployed, _ = deploy.exact(network, ("depth",), tiled=True)
    again = trace.to_onnx(deploy.Deployed(deployed, ("depth",)), torch.zeros(1, 3, 32, 64), "image", ("depth",))
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert OnnxGraph.read(graph.folder) == graph


@pytest.mark.parametrize(
    "weight", ["affinity_learning_module.spatial_att.spread.4.mix", "backbone.0.conv2.weight", "heads.depth.2.weight"]
)
def test_a_wrong_weight_is_refused(exact: Exported, tmp_path: Path, weight: str) -> None:
    network, graph, model = exact
    altered = onnx.ModelProto()
    altered.CopyFrom(model)
    tensor = next(tensor for tensor in altered.graph.initializer if tensor.name == weight)
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=-1), weight))
    if values.shape[-1] == 1:
        tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), weight))
    onnx.save(altered, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"does not compute what the checkpoint computes: .*depth by .*as published"):
        parity.with_parity(replace(graph, folder=tmp_path), network, frames=1)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ExportError, match="semseg by nan"):
        parity._check({"depth": 0.0, "semseg": float("nan")}, 1e-4, "nothing")


def test_frame_graph_equals_the_host(export: Callable[..., Exported]) -> None:
    network, graph, _ = export("hps", KIND_NAMES, Wanted(frame_size=FRAME_SIZE))
    spec = graph.model
    session = onnxruntime.InferenceSession(str(graph.path))
    frame = parity.structured_frame(FRAME_SIZE, seed=0)
    maps = dict(zip(spec.task_names, session.run(list(spec.task_names), {"frame": frame}), strict=True))
    with torch.no_grad():
        raw = network.deploy(torch.from_numpy(preprocess(frame, spec.input)))
    for task in spec.tasks:
        wanted = decode(raw[task.name].numpy(), task, FRAME_SIZE)
        found = maps[task.name]
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        if found.dtype == np.uint8:
            assert np.mean(found == wanted) > 0.999
            assert len(np.unique(found)) > 1
        else:
            np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
            assert np.ptp(wanted) > 0
    assert [tensor.layout for tensor in graph.inputs] == ["HWC"]


def test_too_large_for_the_published_form(
    monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    network = make_network("emanet", ("semseg", "depth"))
    _, described = parity._reference(network)
    assert "as published" in described
    monkeypatch.setattr(parity, "_LARGEST_AFFINITIES", 1000)
    reference, described = parity._reference(network)
    assert "exact CTAL (as published it needs" in described
    assert reference.affinity_learning_module.spatial_att.form == "exact"
