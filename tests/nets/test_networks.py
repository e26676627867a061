"""Building networks: outputs for any set of tasks, network and size; initial weights; exporting; refusals."""

import pytest
import torch

from emadeploy import nets
from emadeploy.contract.errors import FrameError
from emadeploy.nets.blocks import BACKBONE_MOMENTUM

NETWORKS = ("emanet", "m_emanet", "stl", "hps")
ALL_TASKS = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")


def auxiliary_names(network, tasks):
    prefixes = {"emanet": ["initial"], "m_emanet": [f"scale_{s}" for s in range(4)]}.get(network, [])
    return {f"{prefix}_{task}" for prefix in prefixes for task in tasks}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("tasks", [("depth",), ("normals", "semseg"), ALL_TASKS], ids=lambda tasks: str(len(tasks)))
@pytest.mark.parametrize("size", [(32, 32), (64, 96)], ids=str)
def test_every_output_has_its_channels_at_image_size(make_spec, network, tasks, size):
    spec = make_spec(network, tasks, size)
    model = nets.build(spec).eval()
    with torch.no_grad():
        maps = model(torch.rand(2, 3, *size))
    assert set(maps) == set(tasks) | auxiliary_names(network, tasks)
    for name, map_BCHW in maps.items():
        task = next(t for t in spec.tasks if name == t.name or name.endswith(f"_{t.name}"))
        assert map_BCHW.shape == (2, task.channels, *size)
        assert map_BCHW.dtype == torch.float32


@pytest.mark.parametrize("network", NETWORKS)
def test_deploy_gives_the_same_finals_alone(make_spec, network):
    model = nets.build(make_spec(network)).eval()
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        everything, finals = model(image), model.deploy(image)
    assert list(finals) == ["semseg", "depth", "normals"]
    assert all(torch.equal(finals[name], everything[name]) for name in finals)


@pytest.mark.parametrize("network", ["emanet", "m_emanet"])
def test_forms_agree_in_the_whole_network(make_spec, network, relative_error):
    model = nets.build(make_spec(network)).eval().double()
    image = torch.rand(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        exact = model.predict(image, auxiliary=False)
        for attention in model.attentions().values():
            attention.form = "affinity"
        published = model.predict(image, auxiliary=False)
    assert max(relative_error(exact[name], published[name]) for name in exact) < 1e-12


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_learns(make_spec, network):
    model = nets.build(make_spec(network)).train()
    sum(map_BCHW.square().mean() for map_BCHW in model(torch.rand(2, 3, 32, 64)).values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The mean over the batch removes what a convolution adds before BatchNorm: its bias has no gradient but rounding.
    assert [name for name in without if not name.endswith("bias")] == []


def test_autocast_gives_float32_maps(make_spec):
    model = nets.build(make_spec())
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(torch.rand(2, 3, 32, 64))
    assert {map_BCHW.dtype for map_BCHW in maps.values()} == {torch.float32}
    sum(map_BCHW.mean() for map_BCHW in maps.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("size", [(32, 64), (128, 128)], ids=str)
def test_fresh_attention_neither_drowns_nor_vanishes(make_spec, size):
    """At any image size, gamma * O is of the order of (1 - gamma) * X when training starts."""
    model = nets.build(make_spec(size=size)).train()
    ratios = []

    def compare(_module, inputs, outputs):
        for task, feat in inputs[0].items():
            ratios.append(((outputs[task] - 0.95 * feat).norm() / (0.95 * feat).norm()).item())

    for attention in model.attentions().values():
        attention.register_forward_hook(compare)
    with torch.no_grad():
        model(torch.rand(2, 3, *size))
    assert len(ratios) == 3
    assert all(0.1 < ratio < 3 for ratio in ratios), ratios


@pytest.mark.parametrize("network", NETWORKS)
def test_untrained_answers_fit_float16(make_spec, network):
    model = nets.build(make_spec(network)).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, 32, 64))
    assert all(0 < map_BCHW.abs().max() < 1e4 for map_BCHW in maps.values())


def test_batchnorm_momentum_is_slow_in_the_backbone_alone(make_spec):
    model = nets.build(make_spec())
    backbone = model.hrnets()["backbone.0"]
    inside = {m.momentum for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert inside == {BACKBONE_MOMENTUM}
    assert {m.momentum for m in model.heads.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_torch_export_sees_two_products_and_no_affinity(make_spec):
    model = nets.build(make_spec(size=(64, 96))).eval()

    class Deployed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model

        def forward(self, image_B3HW):
            return self.network.deploy(image_B3HW)

    image = torch.rand(1, 3, 64, 96)
    # With gradients on, as an exporter that forgets to turn them off would have it.
    program = torch.export.export(Deployed(), (image,))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("matmul" in name or "bmm" in name for name in called) == 2
    found, expected = program.module()(image), model.deploy(image)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)


def test_build_takes_the_name_of_a_zoo_entry():
    model = nets.build("hps-nyuv2")
    assert (model.spec.name, model.spec.network) == ("hps-nyuv2", "hps")


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (1, 1, 32, 64), (3, 32, 64)], ids=str)
def test_image_of_another_shape_is_refused(make_spec, shape):
    model = nets.build(make_spec("hps"))
    with pytest.raises(
        FrameError, match=r"expected \(batch, 3, 32, 64\): resize the image, or build the model for its"
    ):
        model(torch.rand(shape))
