"""From samples to batches: the flip, the order, the resizing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.errors import DataError  # noqa: E402
from emadeploy.contract.preprocess import preprocess  # noqa: E402
from emadeploy.contract.recipe import TrainSpec  # noqa: E402
from emadeploy.data.sample import Sample  # noqa: E402
from emadeploy.train import processes  # noqa: E402
from emadeploy.train.augment import Draw  # noqa: E402
from emadeploy.train.batches import REPLACEMENTS, Batches, Draws, InOrder, Loader, collate, to_tensors  # noqa: E402
from emadeploy.train.losses import MultiTaskLoss, valid_pixels  # noqa: E402


@pytest.fixture
def spec(make_spec):
    return make_spec()


@pytest.fixture
def sample(spec):
    """Noise everywhere, so that nothing is symmetric; some pixels without truth."""
    rng = np.random.default_rng(5)
    height, width = spec.input.size
    label = rng.integers(0, 3, (height, width)).astype(np.uint8)
    label[rng.random((height, width)) < 0.2] = 255
    truth = {
        "semseg": label,
        "depth": rng.uniform(0, 5, (height, width)).astype(np.float32),
        "normals": rng.normal(size=(height, width, 3)).astype(np.float32),
        "edge": np.zeros((height, width), np.uint8),
    }
    return Sample("a", rng.integers(0, 256, (height, width, 3), np.uint8), truth)


def test_image_is_the_one_preprocess_and_truth_is_what_losses_take(spec, sample):
    image, truth = to_tensors(sample, spec)
    np.testing.assert_array_equal(image.numpy(), preprocess(sample.image, spec.input)[0])
    assert list(truth) == ["semseg", "depth", "normals"], "edge is no task of the model"
    assert truth["semseg"].dtype == torch.int64
    np.testing.assert_array_equal(truth["semseg"].numpy(), sample.truth["semseg"])
    np.testing.assert_array_equal(truth["depth"].numpy()[0], sample.truth["depth"])
    np.testing.assert_array_equal(truth["normals"].numpy(), sample.truth["normals"].transpose(2, 0, 1))


def test_labels_are_resized_by_nearest_and_never_mixed(spec, sample):
    height, width = spec.input.size
    large = {name: np.repeat(np.repeat(truth, 2, 0), 2, 1) for name, truth in sample.truth.items()}
    image = np.repeat(np.repeat(sample.image, 2, 0), 2, 1)
    _, truth = to_tensors(Sample("large", image, large), spec)
    assert truth["semseg"].shape == (height, width)
    for name, expected in to_tensors(sample, spec)[1].items():
        assert torch.equal(truth[name], expected), name
    # At odd ratios too nothing but values that were there comes out.
    odd = {"semseg": np.where(np.arange(77) % 2, 2, 255).astype(np.uint8)[None].repeat(51, 0)}
    _, truth = to_tensors(Sample("odd", np.zeros((51, 77, 3), np.uint8), odd), spec)
    assert set(truth["semseg"].unique().tolist()) == {2, 255}


def test_a_sample_may_lack_a_task(spec, sample):
    _, truth = to_tensors(Sample("c", sample.image, {"depth": sample.truth["depth"]}), spec)
    assert list(truth) == ["depth"]


# ---- order


def drawn(count: int = 20, *, epoch: int = 0, seed: int = 3, **recipe: object) -> list[Draw]:
    draws = Draws(count, TrainSpec(**{"batch_size": 1, **recipe}), seed=seed)
    draws.set_epoch(epoch)
    found = list(draws)
    assert len(draws) == len(found)
    return found


def test_draws_depend_on_seed_and_epoch_alone():
    assert drawn() == drawn()
    assert drawn() != drawn(epoch=1)
    assert drawn() != drawn(seed=4)
    assert drawn(epoch=1) == drawn(epoch=1)


def test_draws_are_every_sample_once():
    for epoch in range(3):
        assert sorted(draw.index for draw in drawn(epoch=epoch)) == list(range(20))
    assert 5 <= sum(draw.flip for draw in drawn()) <= 15
    assert not any(draw.flip for draw in drawn(horizontal_flip=False))


def test_what_fills_no_batch_is_left_out_unless_it_is_all():
    assert len(drawn(20, batch_size=8)) == 16
    assert len(drawn(5, batch_size=8)) == 5


@pytest.mark.parametrize("count", [20, 5])
def test_processes_share_every_batch_and_together_see_what_one_sees(monkeypatch, count):
    """Batch by batch: the shares of three processes, one after the other, are the batch of one."""
    alone = drawn(count, batch_size=6)
    monkeypatch.setattr(processes, "count", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(drawn(count, batch_size=6))
    assert all(shares), "every process has something to do"
    batches = 3 if count == 20 else 1
    together = []
    for batch in range(batches):
        for mine in shares:
            size = len(mine) // batches
            together += mine[batch * size : (batch + 1) * size]
    assert together == alone


def test_validation_frames_are_shared_once_each(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        mine = InOrder(7)
        seen += list(mine)
        assert len(mine) in (2, 3)
    assert seen == [Draw(index) for index in range(7)]


def test_draws_index_batches(frames, spec):
    batches = Batches(frames(3), spec)
    plain = batches[Draw(1)]
    assert len(batches) == 3
    assert plain.names == ["1"]
    assert torch.equal(batches[Draw(1, flip=True)].image, plain.image.flip(-1))


def test_a_loader_continues_inside_an_epoch_once(frames, spec):
    draws = Draws(6, TrainSpec(batch_size=2), seed=3)
    loader = Loader(Batches(frames(6), spec), sampler=draws, batch_size=2, collate_fn=collate)
    whole = [batch.image for batch in loader]
    loader.load_state_dict({"epoch": 0, "batches": 2})
    rest = [batch.image for batch in loader]
    assert len(rest) == 1
    assert torch.equal(rest[0], whole[2])
    assert len(list(loader)) == 3
    assert loader.state_dict() == {"epoch": 0, "batches": 2}


# ---- frames that lack a task


class Partial:
    """Of three frames the first has no depth, and the last nothing at all."""

    description, tasks = "partial frames", ("semseg", "depth")

    def __init__(self, frames):
        self.frames = frames(3)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        whole = self.frames[index]
        kept = ({"semseg"}, {"semseg", "depth"}, set())[index]
        return Sample(whole.name, whole.image, {name: whole.truth[name] for name in kept})


def test_what_a_frame_has_no_truth_for_is_not_judged(frames, spec):
    batches = Batches(Partial(frames), spec)
    batch = collate([batches[Draw(index)] for index in range(3)])
    assert list(batch.truth) == ["semseg", "depth"], "the data has no normals at all"
    judged = {name: valid_pixels(target, name).flatten(1).any(dim=1).tolist() for name, target in batch.truth.items()}
    assert judged == {"semseg": [True, True, False], "depth": [False, True, False]}


@pytest.mark.parametrize("weighting", ["scalarization", "uncertainty"])
def test_losses_of_a_partial_batch_are_means_over_its_valid_pixels(frames, spec, weighting):
    batches, loss = Batches(Partial(frames), spec), MultiTaskLoss(spec.tasks, weighting)
    torch.manual_seed(1)
    channels = {"semseg": 3, "depth": 1, "normals": 3}
    raw = {name: torch.randn(3, count, *spec.input.size, requires_grad=True) for name, count in channels.items()}
    _, per_task = loss(raw, collate([batches[Draw(index)] for index in range(3)]).truth)
    _, alone = loss({name: maps[1:2] for name, maps in raw.items()}, batches_of(batches, 1).truth)
    torch.testing.assert_close(per_task["depth"], alone["depth"], msg="one frame has a depth: it is the mean")

    # Without depth in the batch: no part of the loss, no gradient, no NaN.
    total, per_task = loss({name: maps[:1] for name, maps in raw.items()}, batches_of(batches, 0).truth)
    assert per_task["depth"] == 0
    total.backward()
    assert raw["depth"].grad.abs().sum() == 0
    assert all(torch.isfinite(maps.grad).all() for maps in raw.values() if maps.grad is not None)
    if weighting == "uncertainty":
        assert loss.log_variances["depth"].grad == 0
        assert loss.log_variances["semseg"].grad != 0

    # Without any truth: zero, and it can still be trained on.
    total, _ = loss({name: maps[2:] for name, maps in raw.items()}, batches_of(batches, 2).truth)
    assert total == 0
    total.backward()


def batches_of(batches, index):
    return collate([batches[Draw(index)]])


# ---- frames that cannot be read


class Damaged:
    """Frames of which some cannot be read."""

    description, tasks = "damaged frames", ("semseg", "depth", "normals")

    def __init__(self, frames, count, damaged):
        self.frames, self.damaged = frames(count), damaged

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if index in self.damaged:
            raise DataError(f"label/{index}.npy is truncated")
        return self.frames[index]


def test_the_next_frame_takes_the_place_of_a_damaged_one_in_training(frames, spec):
    batches = Batches(Damaged(frames, 5, {3, 4}), spec)
    found = batches[Draw(3, flip=True)]
    assert found.names == ["0"], "after the last frame comes the first"
    assert found.corrupt == [
        "frame 3 of damaged frames: label/3.npy is truncated",
        "frame 4 of damaged frames: label/4.npy is truncated",
    ]
    assert torch.equal(found.image, batches[Draw(0, flip=True)].image)


def test_nothing_is_judged_of_a_damaged_frame_in_validation(frames, spec):
    found = Batches(Damaged(frames, 5, {3}), spec, replace=False)[Draw(3)]
    assert found.corrupt == ["frame 3 of damaged frames: label/3.npy is truncated"]
    assert not any(valid_pixels(target[None], name).any() for name, target in found.truth.items())


def test_data_of_which_nothing_can_be_read_is_not_searched_for_ever(frames, spec):
    count = REPLACEMENTS + 5
    found = Batches(Damaged(frames, count, set(range(count))), spec)[Draw(0)]
    assert len(found.corrupt) == REPLACEMENTS
    assert not any(valid_pixels(target[None], name).any() for name, target in found.truth.items())
