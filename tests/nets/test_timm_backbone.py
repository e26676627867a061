"""Backbones of timm, through a stand-in with timm's own face: what is asked of it, and what comes of its maps."""

import sys
from dataclasses import replace

import pytest
import torch
from fake_timm import HIERARCHY, Layout, Pyramid, install
from torch import nn

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError, BackendMissing, SpecError
from emadeploy.contract.spec import CtalSpec
from emadeploy.nets.timm_backbone import TimmBackbone

SIZE = (64, 96)


@pytest.fixture
def asked(monkeypatch):
    """Put the stand-in in timm's place; returns the calls of create_model as they come."""
    return install(monkeypatch)


@pytest.mark.parametrize("name", ["window", "convolutional", "silent"])
def test_four_maps_with_channels_first(asked, name):
    backbone = TimmBackbone(name, SIZE)
    assert backbone.channels == (8, 16, 32, 64)
    image = torch.rand(2, 3, *SIZE)
    shapes = [tuple(feat.shape) for feat in backbone(image)]
    assert shapes == [(2, width, SIZE[0] // stride, SIZE[1] // stride) for stride, width in HIERARCHY.items()]
    finest = backbone.model.layers[-4](image)
    assert torch.equal(backbone(image)[0], finest), "channels last are turned, not reshaped"
    wanted = {"features_only": True, "pretrained": False} | ({"img_size": SIZE} if name == "window" else {})
    assert asked == [(name, wanted)], "only what is made for one size is told the image's"


@pytest.mark.parametrize("network", ["emanet", "m_emanet", "stl", "hps"])
@pytest.mark.parametrize("stride", [4, 32])
def test_every_network_stands_on_it(asked, make_spec, network, stride):
    spec = replace(make_spec(network, size=SIZE), backbone="timm:window", ctal=CtalSpec(stride=stride))
    model = nets.build(spec)
    raw = model(torch.rand(2, 3, *SIZE))
    assert {name: tuple(raw[name].shape) for name in spec.task_names} == {
        "semseg": (2, 13, *SIZE),
        "depth": (2, 1, *SIZE),
        "normals": (2, 3, *SIZE),
    }
    for attention in model.attentions().values():
        assert attention.size == (SIZE[0] // stride, SIZE[1] // stride)
    sum(map_BCHW.sum() for map_BCHW in raw.values()).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not idle


def test_its_own_initial_weights_stay(asked, make_spec, monkeypatch):
    monkeypatch.setattr(Pyramid, "__init__", initialised_by_hand(Pyramid.__init__))
    model = nets.build(replace(make_spec("hps", size=SIZE), backbone="timm:window"))
    assert (model.backbone.model.layers[0].weight == 0.5).all()
    assert not (model.heads["depth"].last_layer[0].weight == 0.5).any()


def initialised_by_hand(init):
    def made(self, *arguments):
        init(self, *arguments)
        nn.init.constant_(self.layers[0].weight, 0.5)

    return made


def test_a_checkpoint_goes_to_disk_and_back_also_for_another_size(asked, make_spec, tmp_path):
    spec = replace(make_spec("emanet", size=SIZE), backbone="timm:window", ctal=CtalSpec(stride=32))
    model = nets.build(spec).eval()
    nets.save_checkpoint(tmp_path / "one", model, spec)
    image = torch.rand(1, 3, *SIZE)
    loaded = nets.load(tmp_path / "one").eval()
    assert torch.equal(loaded(image)["depth"], model(image)["depth"])
    larger = nets.load(tmp_path / "one", size=(128, 192))
    assert next(iter(larger.attentions().values())).size == (4, 6)


def test_imagenet_weights_through_timm_itself(asked, make_spec, tmp_path):
    file = tmp_path / "window.pth"
    donor = Pyramid(HIERARCHY, Layout.NHWC)
    torch.save(donor.state_dict(), file)
    model = nets.build(replace(make_spec("stl", size=SIZE), backbone="timm:window"))
    nets.load_backbone(model, file)
    assert len(model.timm_backbones()) == 3
    for backbone in model.timm_backbones().values():
        assert torch.equal(backbone.model.layers[2].weight, donor.layers[2].weight)
    assert asked[-1][1]["pretrained_cfg_overlay"] == {"file": str(file)}


def test_imagenet_weights_of_another_model_are_refused(asked, make_spec, tmp_path):
    """timm itself takes what fits and says nothing."""
    file, model = tmp_path / "other.pth", nets.build(replace(make_spec("hps", size=SIZE), backbone="timm:window"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({"other": torch.zeros(1)}, file)
    with pytest.raises(
        ArtifactError, match=r"other.pth does not hold .* 'window': it leaves 8 of 8 entries unset \(lay"
    ):
        nets.load_backbone(model, file)
    torch.save({"layers.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ArtifactError, match=r"other.pth cannot be loaded as timm model 'window': Error"):
        nets.load_backbone(model, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("column", r"backbone 'timm:column' gives maps at 1/16 of the image; expected 1/4, 1/8, 1/16 and 1/32"),
        ("nobody", r"'timm:nobody': timm cannot make it for images of 64x96: Unknown model \(nobody\); timm.list_mod"),
    ],
)
def test_a_model_that_will_not_do(asked, make_spec, name, message):
    with pytest.raises(SpecError, match=message):
        nets.build(replace(make_spec("hps", size=SIZE), backbone=f"timm:{name}"))


def test_without_timm_the_line_that_installs_it(make_spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackendMissing, match=r"a timm backbone needs timm, .* pip install 'emadeploy\[timm\]'"):
        nets.build(replace(make_spec(), backbone="timm:resnet18"))


def test_a_timm_that_does_not_load_beside_this_torch(make_spec, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        BackendMissing, match=r"cannot be imported \(operator torchvision::nms does not exist\): install"
    ):
        nets.build(replace(make_spec(), backbone="timm:resnet18"))


def test_fusing_at_a_coarser_map_averages_the_finer_ones():
    from emadeploy.nets.blocks import concatenate_scales

    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse = torch.full((1, 2, 2, 2), 7.0)
    joined = concatenate_scales([fine, coarse], 1)
    assert joined.shape == (1, 3, 2, 2)
    assert joined[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert (joined[0, 1:] == 7).all()
