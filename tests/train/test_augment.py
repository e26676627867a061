"""Augmentation: the picture and its truth change together, and as a camera would see it."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from emadeploy.contract.recipe import TrainSpec
from emadeploy.contract.spec import InputSpec, ModelSpec, TaskSpec
from emadeploy.data.sample import Sample
from emadeploy.train.augment import Draw, augment, draw_epoch

HEIGHT, WIDTH = 32, 64


@pytest.fixture
def sample():
    """Noise everywhere, so that nothing is symmetric; every map can be told from its place."""
    rng = np.random.default_rng(5)
    truth = {
        "semseg": rng.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8),
        "depth": rng.uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32),
        "normals": rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32),
    }
    return Sample("a", rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), truth)


@pytest.fixture
def spec(make_spec):
    return make_spec()


def test_a_plain_draw_changes_nothing(sample, spec):
    same = augment(sample, Draw(0), spec)
    assert np.array_equal(same.image, sample.image)
    assert all(np.array_equal(same.truth[name], sample.truth[name]) for name in sample.truth)


def test_flip_mirrors_everything_and_negates_x_of_normals(sample, spec):
    flipped = augment(sample, Draw(0, flip=True), spec)
    for name in ("semseg", "depth"):
        assert np.array_equal(flipped.truth[name], sample.truth[name][:, ::-1])
    assert np.array_equal(flipped.image, sample.image[:, ::-1])
    x, y, z = np.moveaxis(sample.truth["normals"][:, ::-1], 2, 0)
    assert np.array_equal(flipped.truth["normals"], np.stack([-x, y, z], axis=2))
    twice = augment(flipped, Draw(0, flip=True), spec)
    assert all(np.array_equal(twice.truth[name], sample.truth[name]) for name in sample.truth)


def test_scale_cuts_out_the_same_part_of_all_and_brings_it_nearer(sample, spec):
    near = augment(sample, Draw(0, scale=2.0, top=1.0, left=0.5), spec)
    part = np.s_[16:32, 16:48]
    assert np.array_equal(near.image, sample.image[part])
    assert np.array_equal(near.truth["semseg"], sample.truth["semseg"][part])
    assert np.array_equal(near.truth["normals"], sample.truth["normals"][part])
    np.testing.assert_allclose(near.truth["depth"], sample.truth["depth"][part] / 2, rtol=1e-6)


def test_scale_of_inverse_depth(sample):
    depth = TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger")
    inverse = ModelSpec("inverse", "hps", (depth,), InputSpec(HEIGHT, WIDTH))
    near = augment(sample, Draw(0, scale=2.0, top=0.0, left=0.0), inverse)
    np.testing.assert_allclose(near.truth["depth"], sample.truth["depth"][:16, :32] * 2, rtol=1e-6)


def test_unknown_depth_stays_unknown(sample, spec):
    sample.truth["depth"][:] = 0
    assert not augment(sample, Draw(0, scale=1.5), spec).truth["depth"].any()


def test_colours_change_the_picture_alone_and_by_hand(spec):
    image = np.full((HEIGHT, WIDTH, 3), (100, 50, 200), np.uint8)
    sample = Sample("a", image, {"semseg": np.ones((HEIGHT, WIDTH), np.uint8)})
    brighter = augment(sample, Draw(0, brightness=1.2), spec)
    assert brighter.image[0, 0].tolist() == [120, 60, 240]
    assert np.array_equal(brighter.truth["semseg"], sample.truth["semseg"])
    grey = round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)
    assert augment(sample, Draw(0, saturation=0.0), spec).image[0, 0].tolist() == [grey] * 3
    # Of one colour only, contrast spreads the channels about their grey; nothing leaves 0 to 255.
    assert augment(sample, Draw(0, contrast=4.0), spec).image[0, 0].tolist() == [154, 0, 255]


def test_draws_stay_within_the_recipe():
    recipe = TrainSpec(random_scale=1.5, colour_jitter=0.3)
    draws = list(draw_epoch(500, recipe, seed=1, epoch=2))
    for name, low, high in (("scale", 1, 1.5), ("brightness", 0.7, 1.3), ("saturation", 0.7, 1.3), ("top", 0, 1)):
        values = np.array([getattr(draw, name) for draw in draws])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high


def test_a_recipe_without_augmentation_draws_plain_frames():
    for draw in draw_epoch(20, TrainSpec(horizontal_flip=False), seed=1, epoch=0):
        assert (draw.flip, draw.scale, draw.brightness, draw.contrast, draw.saturation) == (False, 1, 1, 1, 1)
