"""Camera images of ROS, in every encoding, against pictures whose colours are known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.robotics.ros.images import read_image

cv2 = pytest.importorskip("cv2")

RGB = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
GREY = RGB[:, :, 0].copy()
ALPHA = np.full((6, 8, 1), 7, np.uint8)


def message(array: np.ndarray[Any, Any], encoding: str, **fields: Any) -> SimpleNamespace:
    data = np.ascontiguousarray(array)
    values = {"height": data.shape[0], "width": data.shape[1], "encoding": encoding, "is_bigendian": 0}
    values |= {"step": data[0].nbytes, "data": data.view(np.uint8).ravel()}
    return SimpleNamespace(**{**values, **fields})


@pytest.mark.parametrize(
    ("encoding", "array", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[:, :, ::-1], RGB),
        ("8UC3", RGB[:, :, ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=2), RGB),
        ("bgra8", np.concatenate([RGB[:, :, ::-1], ALPHA], axis=2), RGB),
        ("mono8", GREY, GREY[:, :, None].repeat(3, axis=2)),
        ("mono16", GREY.astype("<u2") * 256 + 9, GREY[:, :, None].repeat(3, axis=2)),
        ("rgb16", RGB.astype("<u2") * 256 + 9, RGB),
        ("bgr16", RGB[:, :, ::-1].astype("<u2") * 256 + 9, RGB),
    ],
)
def test_encodings_that_lose_nothing(encoding: str, array: Any, expected: Any) -> None:
    pixels = read_image(message(array, encoding))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_big_endian_and_rows_with_a_gap_behind_them() -> None:
    big = message((GREY.astype(np.uint16) * 256 + 9).astype(">u2"), "mono16", is_bigendian=1)
    np.testing.assert_array_equal(read_image(big)[:, :, 1], GREY)
    padded = np.zeros((6, 32), np.uint8)
    padded[:, :24] = RGB.reshape(6, 24)
    np.testing.assert_array_equal(read_image(message(padded, "rgb8", width=8)), RGB)
    # A driver may leave out the gap of the last row; rclpy gives arrays of bytes.
    data = padded.tobytes()[:-8]
    np.testing.assert_array_equal(read_image(message(padded, "rgb8", width=8, data=data)), RGB)


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_yuv_is_of_the_right_colour(encoding: str, order: str) -> None:
    # A plain orange, by ITU-R BT.601 in the range of video.
    values = dict(zip("yuv", (149, 43, 194), strict=True))
    packed = np.array([values[letter] for letter in order], np.uint8).reshape(2, 2)
    array = np.tile(packed, (6, 4, 1)).reshape(6, 8, 2)
    pixels = read_image(message(array, encoding))
    np.testing.assert_allclose(pixels.reshape(-1, 3), np.tile([[255, 138, 0]], (48, 1)), atol=8)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_their_colour_back(pattern: str, bits: int) -> None:
    colour = {"r": 200, "g": 90, "b": 30}
    tile = np.array([colour[letter] for letter in pattern], np.uint16).reshape(2, 2)
    mosaic = np.tile(tile, (4, 5))
    array = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 256 + 5).astype("<u2")
    pixels = read_image(message(array, f"bayer_{pattern}{bits}"))
    assert pixels.shape == (8, 10, 3)
    np.testing.assert_array_equal(pixels[2:-2, 2:-2].reshape(-1, 3), np.tile([[200, 90, 30]], (24, 1)))


def test_packed_images() -> None:
    png = cv2.imencode(".png", RGB[:, :, ::-1])[1].ravel()
    np.testing.assert_array_equal(read_image(SimpleNamespace(format="png", data=png)), RGB)
    plain = np.full((16, 16, 3), (10, 120, 230), np.uint8)
    jpeg = cv2.imencode(".jpg", plain[:, :, ::-1])[1].ravel()
    np.testing.assert_allclose(
        read_image(SimpleNamespace(format="bgr8; jpeg compressed bgr8", data=jpeg)), plain, atol=4
    )
    with pytest.raises(DataError, match="the message is damaged: a jpg without its end"):
        read_image(SimpleNamespace(format="jpeg", data=jpeg[:-20]))
    with pytest.raises(DataError, match="the message is empty"):
        read_image(SimpleNamespace(format="jpeg", data=b""))
    with pytest.raises(SpecError, match="are depth, not camera images"):
        read_image(SimpleNamespace(format="16UC1; compressedDepth png", data=png))


@pytest.mark.parametrize(
    "fields", [{"step": 23}, {"data": RGB.ravel()[:-1]}, {"height": 0}, {"width": 0}, {"height": 7}, {"data": b""}]
)
def test_sizes_that_contradict_the_data(fields: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"the message has \d+ bytes in rows of \d+; expected \d+ x \d+ for"):
        read_image(message(RGB, "rgb8", **fields))


def test_an_encoding_of_no_camera() -> None:
    with pytest.raises(SpecError, match=r"images in '32FC1' are no camera images; known encodings: rgb8, bgr8"):
        read_image(message(np.zeros((2, 2), np.float32), "32FC1"))
