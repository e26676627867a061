"""Edges one pixel wide: suppression keeps crests, thinning keeps connections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure, morphology

from emadeploy.evaluate.thinning import suppress, thin


def mask_of(*rows: str) -> np.ndarray:
    """Return the mask drawn with '#'."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


# --- suppression


@pytest.mark.parametrize("turned", [False, True])
def test_the_crest_of_a_broad_edge_stays_and_not_its_middle(turned):
    profile = [0.0, 0.2, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0]
    map_HW = np.repeat(np.array(profile)[:, None], 40, axis=1)
    kept_HW = suppress(map_HW.T).T if turned else suppress(map_HW)
    assert np.all(kept_HW[2] == 0.9)
    assert np.count_nonzero(kept_HW) == 40


def test_the_crest_of_a_slanted_edge_stays():
    y, x = np.mgrid[:60, :60]
    distance = np.abs(y - x) / np.sqrt(2)
    kept_HW = suppress(np.exp(-((distance / 2) ** 2)))
    inner = np.s_[10:-10, 10:-10]
    np.testing.assert_array_equal(kept_HW[inner] > 0, np.eye(60, dtype=bool)[inner])


def test_what_is_everywhere_the_same_is_kept():
    flat_HW = np.full((20, 30), 0.4)
    np.testing.assert_array_equal(suppress(flat_HW), flat_HW)
    assert not suppress(np.zeros((20, 30))).any()


# --- thinning


def test_a_bar_becomes_its_middle_line():
    thinned = thin(mask_of(".........", ".#######.", ".#######.", ".#######.", "........."))
    assert not thinned[[0, 1, 3, 4]].any()
    assert thinned[2, 2:7].all()


@pytest.mark.parametrize(
    "mask",
    [
        mask_of("....", ".##.", "...."),
        mask_of("#...", ".#..", "..#.", "...#"),
        mask_of("#...#", ".#.#.", "..#..", "..#..", "..#.."),
        mask_of("###", "#.#", "###"),
        mask_of("...", "...", "..."),
    ],
)
def test_lines_stay_as_they_are(mask):
    before = mask.copy()
    np.testing.assert_array_equal(thin(mask), morphology.thin(mask))
    np.testing.assert_array_equal(mask, before)
    lines = thin(mask)
    np.testing.assert_array_equal(thin(lines), lines)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.95), shape=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_thinning_is_that_of_scikit_image_and_keeps_the_pieces(seed, share, shape):
    mask = np.random.default_rng(seed).random(shape) < share
    thinned = thin(mask)
    np.testing.assert_array_equal(thinned, morphology.thin(mask))
    assert not (thinned & ~mask).any()
    assert measure.label(thinned, connectivity=2).max() == measure.label(mask, connectivity=2).max()
