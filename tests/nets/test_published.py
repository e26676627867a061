"""Importing what others published: wrappers, file kinds, and every misfit by name."""

import argparse

import pytest
import safetensors.torch
import torch

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError
from emadeploy.nets.hrnet import HRNet


@pytest.fixture(scope="module")
def model(make_spec):
    """The network whose weights are imported."""
    torch.manual_seed(2)
    return nets.build(make_spec("emanet", tasks=("depth", "normals")))


@pytest.fixture(scope="module")
def state(model):
    """Its weights, in the published names."""
    return dict(model.state_dict())


def assert_same(model, state):
    found = model.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)


# ---- whole checkpoints


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {
            "state_dict": {f"model.module.{n}": t for n, t in state.items()} | {"loss.log_vars": torch.zeros(3)},
            "optimizer_states": [{"lr": 1e-4}],
            "pytorch-lightning_version": "2.0",
        },
    ],
    ids=["plain", "state_dict", "model", "module-prefix", "lightning"],
)
def test_every_wrapping_is_taken_off(tmp_path, model, state, suffix, wrap):
    file = tmp_path / f"weights{suffix}"
    torch.save(wrap(state), file)
    assert_same(nets.import_published(file, model.spec), state)


def test_safetensors_too(tmp_path, model, state):
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    assert_same(nets.import_published(file, model.spec), state)


def test_other_float_types_become_float32(tmp_path, model, state):
    file = tmp_path / "weights.pth"
    torch.save({n: t.double() if t.is_floating_point() else t for n, t in state.items()}, file)
    assert_same(nets.import_published(file, model.spec), state)


def test_imported_becomes_a_checkpoint(tmp_path, model, state):
    torch.save(state, tmp_path / "weights.pth")
    imported = nets.import_published(tmp_path / "weights.pth", model.spec)
    nets.save_checkpoint(tmp_path / "ours", imported, imported.spec)
    assert_same(nets.load(tmp_path / "ours"), state)


def test_every_misfit_is_named(tmp_path, model, state):
    wrong = dict(state)
    del wrong["heads.depth.2.bias"], wrong["backbone.0.conv1.weight"]
    wrong |= {"heads.edge.2.bias": torch.zeros(1), "extra": torch.zeros(2)}
    wrong["heads.normals.2.weight"] = torch.zeros(4, 128, 1, 1)
    wrong["affinity_learning_module.spatial_att.fusion.bias"] = torch.zeros(7)
    wrong["heads.normals.2.bias"] = torch.zeros(3, dtype=torch.int64)
    file = tmp_path / "weights.pth"
    torch.save(wrong, file)
    with pytest.raises(ArtifactError) as caught:
        nets.import_published(file, model.spec)
    assert str(caught.value).splitlines() == [
        f"{file} as model 'tiny' (emanet, depth+normals, 32x64) does not fit:",
        "missing (2): backbone.0.conv1.weight, heads.depth.2.bias;",
        "unexpected (2): heads.edge.2.bias, extra;",
        "wrong shape or type (3): affinity_learning_module.spatial_att.fusion.bias is (7,) instead of (128,), "
        "heads.normals.2.weight is (4, 128, 1, 1) instead of (3, 128, 1, 1), "
        "heads.normals.2.bias is (3,) int64 instead of (3,);",
        "nothing was loaded",
    ]


def test_misfits_inside_a_wrapper_are_named_without_it(tmp_path, model, state):
    wrapped = {f"model.{name}": tensor for name, tensor in state.items() if name != "heads.depth.2.bias"}
    torch.save(wrapped, tmp_path / "weights.ckpt")
    with pytest.raises(ArtifactError, match=r"\nmissing \(1\): heads\.depth\.2\.bias;\nnothing"):
        nets.import_published(tmp_path / "weights.ckpt", model.spec)


def test_another_network_is_refused(tmp_path, model, make_spec):
    other = nets.build(make_spec("hps", tasks=("depth", "normals")))
    torch.save(other.state_dict(), tmp_path / "hps.pth")
    with pytest.raises(ArtifactError, match=r"(?s)missing \(.*unexpected \("):
        nets.import_published(tmp_path / "hps.pth", model.spec)


def test_files_without_the_counters_of_batchnorm_load(tmp_path, model, state):
    torch.save({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    assert_same(nets.import_published(tmp_path / "old.pth", model.spec), state)


# ---- files that are none


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half a zip"], ids=["empty", "text", "zip"])
def test_foreign_file(tmp_path, model, suffix, content):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weights.* is not a complete .* file .*; download it again"):
        nets.import_published(file, model.spec)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file(tmp_path, model, state, suffix):
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ArtifactError, match=r"is not a complete .* file .*; download it again"):
        nets.import_published(file, model.spec)


def test_pickled_code_is_not_run(tmp_path, model, state):
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, tmp_path / "weights.pth")
    with pytest.raises(
        ArtifactError, match=r"holds more than weights \(argparse.Namespace\), and reading that runs code"
    ):
        nets.import_published(tmp_path / "weights.pth", model.spec)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, expected a state dict"),
        ({}, "holds dict, expected a state dict"),
        ({"epoch": 3, "lr": 0.1}, "holds no state dict: epoch, lr are no tensors"),
    ],
)
def test_file_without_a_state_dict(tmp_path, model, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ArtifactError, match=message):
        nets.import_published(tmp_path / "weights.pth", model.spec)


def test_missing_file(tmp_path, model):
    with pytest.raises(ArtifactError, match=r"nowhere.pth does not exist; expected weights"):
        nets.import_published(tmp_path / "nowhere.pth", model.spec)


# ---- the backbone's ImageNet weights


@pytest.fixture
def imagenet(tmp_path):
    """An HRNet file as the public ones are, with its classifier."""
    entries = dict(HRNet().state_dict())
    entries |= {f"{part}.0.weight": torch.zeros(2) for part in ("incre_modules", "downsamp_modules", "final_layer")}
    entries["classifier.weight"] = torch.zeros(1000, 2048)
    file = tmp_path / "hrnet.pth"
    torch.save(entries, file)
    return file, entries


@pytest.mark.parametrize("network", ["emanet", "m_emanet", "stl", "hps"])
def test_backbone_weights_reach_every_backbone(imagenet, make_spec, network):
    file, entries = imagenet
    model = nets.build(make_spec(network, tasks=("depth", "normals")))
    heads = {name: tensor.clone() for name, tensor in model.heads.state_dict().items()}
    nets.load_backbone(model, file)
    hrnets = model.hrnets()
    assert len(hrnets) == (2 if network == "stl" else 1)
    for hrnet in hrnets.values():
        assert_same(hrnet, {name: entries[name] for name in hrnet.state_dict()})
    assert_same(model.heads, heads)


def test_other_parts_than_the_classifier_are_named(tmp_path, imagenet, make_spec):
    _, entries = imagenet
    entries["stage5.0.weight"] = torch.zeros(1)
    del entries["stage4.1.branches.3.1.bn2.bias"]
    torch.save(entries, tmp_path / "other.pth")
    model = nets.build(make_spec("hps"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        ArtifactError,
        match=r"missing \(1\): stage4\.1\.branches\.3\.1\.bn2\.bias;\nunexpected \(1\): stage5\.0\.weight;\nnothing",
    ):
        nets.load_backbone(model, tmp_path / "other.pth")
    assert_same(model, before)
