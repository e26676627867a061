"""From samples to batches: the flip, the order, the resizing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.preprocess import preprocess  # noqa: E402
from emadeploy.data.sample import Sample  # noqa: E402
from emadeploy.train.batches import Batches, Draws, Loader, to_tensors  # noqa: E402


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


def test_flip_mirrors_everything_and_negates_x_of_normals(spec, sample):
    image, truth = to_tensors(sample, spec)
    flipped_image, flipped = to_tensors(sample, spec, flip=True)
    assert torch.equal(flipped_image, image.flip(-1))
    assert torch.equal(flipped["semseg"], truth["semseg"].flip(-1))
    assert torch.equal(flipped["depth"], truth["depth"].flip(-1))
    x, y, z = truth["normals"].flip(-1)
    assert torch.equal(flipped["normals"], torch.stack([-x, y, z]))


def test_flipping_twice_is_nothing(spec, sample):
    _, truth = to_tensors(sample, spec, flip=True)
    truth_maps = {
        "semseg": truth["semseg"].numpy().astype(np.uint8),
        "depth": truth["depth"][0].numpy(),
        "normals": truth["normals"].numpy().transpose(1, 2, 0),
    }
    again = Sample("b", np.ascontiguousarray(sample.image[:, ::-1]), truth_maps)
    twice_image, twice = to_tensors(again, spec, flip=True)
    once_image, once = to_tensors(sample, spec)
    assert torch.equal(twice_image, once_image)
    assert all(torch.equal(twice[name], once[name]) for name in once)


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


def drawn(count: int = 20, **options: object) -> list[tuple[int, bool]]:
    epoch = options.pop("epoch", 0)
    draws = Draws(count, **{"seed": 3, "flip": True, **options})
    draws.set_epoch(epoch)
    assert len(draws) == count
    return list(draws)


def test_draws_depend_on_seed_and_epoch_alone():
    assert drawn() == drawn()
    assert drawn() != drawn(epoch=1)
    assert drawn() != drawn(seed=4)
    assert drawn(epoch=1) == drawn(epoch=1)


def test_draws_are_every_sample_once():
    for epoch in range(3):
        assert sorted(index for index, _ in drawn(epoch=epoch)) == list(range(20))
    assert 5 <= sum(flip for _, flip in drawn()) <= 15
    assert not any(flip for _, flip in drawn(flip=False))


def test_draws_index_batches(frames, spec):
    batches = Batches(frames(3), spec)
    image, _ = batches[(1, False)]
    assert len(batches) == 3
    assert torch.equal(batches[(1, True)][0], image.flip(-1))


def test_a_loader_continues_inside_an_epoch_once(frames, spec):
    loader = Loader(Batches(frames(6), spec), sampler=Draws(6, seed=3, flip=True), batch_size=2)
    whole = [image for image, _ in loader]
    loader.load_state_dict({"epoch": 0, "batches": 2})
    rest = [image for image, _ in loader]
    assert len(rest) == 1
    assert torch.equal(rest[0], whole[2])
    assert len(list(loader)) == 3
    assert loader.state_dict() == {"epoch": 0, "batches": 2}
