"""Labels from scores of another size: the same as resizing every score and taking the highest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emadeploy.contract.labels import argmax, resized_argmax
from emadeploy.contract.preprocess import resize_bilinear


def smooth(seed: int, classes: int, height: int, width: int) -> np.ndarray:
    """Return scores that change slowly: like those of a network, most neighbours have the same best class."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, max(1, height // 12), max(1, width // 12))).astype(np.float32)
    return resize_bilinear(coarse, (height, width))


extents = st.integers(1, 40)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 99), st.integers(1, 20), extents, extents, st.tuples(extents, extents), st.booleans())
def test_labels_are_those_of_the_resized_scores(
    seed: int, classes: int, height: int, width: int, size: tuple[int, int], rough: bool
) -> None:
    shape = (classes, height, width)
    score = np.random.default_rng(seed).normal(size=shape) if rough else smooth(seed, *shape)
    score = score.astype(np.float32)
    expected = resize_bilinear(score, size)
    label = resized_argmax(score, size)
    assert (label.dtype, label.shape) == (np.uint8, size)
    # Two scores may be one rounding apart, where the order of the sums decides.
    chosen = np.take_along_axis(expected, label[None].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(chosen, expected.max(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(720, 1280), (480, 640), (100, 90)])
def test_labels_of_a_frame_are_equal_to_the_last_pixel(size: tuple[int, int]) -> None:
    score = smooth(3, 13, 288, 384)
    expected = resize_bilinear(score, size).argmax(axis=0)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(resized_argmax(score, size), expected)


def test_the_first_of_classes_with_the_same_score_counts() -> None:
    score = np.zeros((4, 6, 8), np.float32)
    score[2:, :, 4:] = 1.0  # as an engine in int8 gives them: equal to the bit
    label = resized_argmax(score, (24, 32))
    assert set(np.unique(label)) == {0, 2}
    np.testing.assert_array_equal(label, resize_bilinear(score, (24, 32)).argmax(axis=0))


def test_scores_of_the_frames_size_are_not_resized() -> None:
    score = np.random.default_rng(1).normal(size=(5, 9, 7)).astype(np.float32)
    np.testing.assert_array_equal(resized_argmax(score, (9, 7)), score.argmax(axis=0))
    np.testing.assert_array_equal(argmax(score), score.argmax(axis=0))


def test_half_precision_is_taken_as_it_is() -> None:
    score = smooth(2, 6, 20, 30).astype(np.float16)
    np.testing.assert_array_equal(
        resized_argmax(score, (50, 70)), resize_bilinear(score.astype(np.float32), (50, 70)).argmax(axis=0)
    )
