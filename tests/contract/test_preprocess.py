"""The one preprocess against a naive reference and against PyTorch; frames that are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import FrameError
from emadeploy.contract.preprocess import preprocess, resize_bands, resize_bilinear, resize_nearest, to_rgb
from emadeploy.contract.spec import InputSpec

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def naive_bilinear(map_CHW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, clamped at the border: one sample after the other, in float64."""
    channels, old_height, old_width = map_CHW.shape
    out = np.zeros((channels, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * old_height / size[0] - 0.5, 0), old_height - 1)
            x = min(max((j + 0.5) * old_width / size[1] - 0.5, 0), old_width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
            a, b = y - top, x - left
            upper = (1 - b) * map_CHW[:, top, left].astype(float) + b * map_CHW[:, top, right]
            lower = (1 - b) * map_CHW[:, bottom, left].astype(float) + b * map_CHW[:, bottom, right]
            out[:, i, j] = (1 - a) * upper + a * lower
    return out


@given(old=SIZES, new=SIZES, seed=st.integers(0, 9))
def test_resize_equals_the_naive_reference(old: tuple[int, int], new: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, *old), np.uint8)
    resized = resize_bilinear(pixels, new)
    assert resized.dtype == np.float32
    assert resized.flags.c_contiguous
    np.testing.assert_allclose(resized, naive_bilinear(pixels, new), atol=2e-4)  # of 255


@given(old=SIZES, new=SIZES, seed=st.integers(0, 9))
def test_resize_equals_pytorch(old: tuple[int, int], new: tuple[int, int], seed: int) -> None:
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(seed).random((2, *old), np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=new, mode="bilinear")
    np.testing.assert_allclose(resize_bilinear(maps, new), wanted[0].numpy(), atol=1e-5)


@given(old=SIZES, new=SIZES, rows=st.integers(1, 50))
def test_bands_together_are_the_whole(old: tuple[int, int], new: tuple[int, int], rows: int) -> None:
    maps = np.random.default_rng(0).random((2, *old), np.float32)
    bands = list(resize_bands(maps, new, rows))
    assert [band.start for band, _ in bands] == list(range(0, new[0], rows))
    np.testing.assert_array_equal(np.concatenate([part for _, part in bands], axis=1), resize_bilinear(maps, new))


@given(old=SIZES, new=SIZES)
def test_resizing_stays_within_the_range_of_its_input(old: tuple[int, int], new: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).random((1, *old), np.float32)
    resized = resize_bilinear(maps, new)
    assert resized.min() >= maps.min() - 1e-6
    assert resized.max() <= maps.max() + 1e-6


@given(old=SIZES, new=SIZES)
def test_nearest_takes_the_pixel_under_the_centre(old: tuple[int, int], new: tuple[int, int]) -> None:
    labels = np.arange(old[0] * old[1]).reshape(old)
    rows, columns = ([(2 * i + 1) * a // (2 * b) for i in range(b)] for a, b in zip(old, new, strict=True))
    np.testing.assert_array_equal(resize_nearest(labels, new), labels[rows][:, columns])


def test_preprocess_scales_normalises_and_reorders() -> None:
    spec = InputSpec(32, 64, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    frame = np.empty((48, 80, 3), np.uint8)
    frame[:] = (255, 0, 51)
    image = preprocess(frame, spec)
    assert image.shape == (1, 3, 32, 64)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0, :, 5, 7], (1.0, -1.0, 0.1), atol=1e-6)
    np.testing.assert_array_equal(preprocess(frame[:, :, ::-1], spec, "bgr"), image)
    assert frame[0, 0, 0] == 255, "the frame itself must not change"


def test_a_frame_of_the_network_size_is_only_scaled() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (32, 64, 3), np.uint8)
    image = preprocess(frame, InputSpec(32, 64))
    np.testing.assert_allclose(image[0].transpose(1, 2, 0), frame / 255, atol=1e-7)


GOOD = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (GOOD.astype(np.float32), "dtype float32"),
        (GOOD.astype(np.int64), "dtype int64"),
        (GOOD[:, :, 0], r"shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\)"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
        (GOOD[None], r"shape \(1, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (GOOD.tolist(), "got list"),
        (None, "got NoneType"),
    ],
)
def test_frames_that_are_refused(frame: object, says: str) -> None:
    with pytest.raises(FrameError, match=says) as caught:
        preprocess(frame, InputSpec(32, 32))  # type: ignore[arg-type]
    assert "expected uint8 of shape (height, width, 3)" in str(caught.value)


def test_an_unknown_order_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FrameError, match="order 'RGB' is unknown; known: rgb, bgr"):
        to_rgb(GOOD, "RGB")


def test_a_frame_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="frame"):
        to_rgb(GOOD[0])
