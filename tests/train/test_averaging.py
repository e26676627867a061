"""The running mean of weights: counted by hand."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from torch import nn  # noqa: E402

from emadeploy import nets  # noqa: E402
from emadeploy.train.averaging import RunningMean  # noqa: E402
from emadeploy.train.fit import fit  # noqa: E402


def test_by_hand():
    model = nn.BatchNorm1d(1)
    nn.init.constant_(model.weight, 10.0)
    mean = RunningMean(model, decay=0.5)
    nn.init.constant_(model.weight, 20.0)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked += 3
    mean.update(model)
    # After one update the mean may keep 2 / 11 of what it was.
    assert mean.model.weight.item() == pytest.approx(20 - 10 * 2 / 11)
    assert mean.model.running_mean.item() == pytest.approx(4 - 4 * 2 / 11)
    assert mean.model.num_batches_tracked.item() == 3
    for _ in range(50):
        mean.update(model)
    before = mean.model.weight.item()
    nn.init.constant_(model.weight, before + 1)
    mean.update(model)
    assert mean.model.weight.item() == pytest.approx(before + 0.5), "then the decay itself"


def test_it_is_apart_from_the_model_and_not_trained():
    model = nn.Linear(2, 2)
    mean = RunningMean(model, decay=0.9)
    assert not any(parameter.requires_grad for parameter in mean.parameters())
    assert model.weight.requires_grad
    with torch.no_grad():
        model.weight += 1
    assert not torch.equal(mean.model.weight, model.weight)


def test_it_is_what_is_judged_and_kept(make_run, frames):
    run = make_run(epochs=2, ema_decay=0.9)
    fit(run, frames(4), frames(1), progress=False)
    state = torch.load(run.output / "trainer.ckpt", weights_only=True)["state_dict"]
    kept = nets.read_checkpoint(run.output / "last").state_dict()
    for name, tensor in kept.items():
        assert torch.equal(tensor, state[f"average.model.{name}"]), name
    assert not torch.equal(kept["backbone.conv1.weight"], state["model.backbone.conv1.weight"])
