"""Letters and PNG files, read back by a library that this project did not write."""

import numpy as np
import pytest

from emadeploy.contract.drawing import png, write


def decoded(data: bytes) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_a_png_holds_every_pixel():
    image = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    np.testing.assert_array_equal(decoded(png(image)), image)


def test_letters_are_drawn_as_they_look():
    canvas = np.full((16, 24, 3), 255, np.uint8)
    write(canvas, "L+", 0, 0)
    dots = canvas[::2, ::2, 0] == 25
    assert ["".join("#" if dot else "." for dot in row) for row in dots] == [
        ".##.........",
        "..#.....#...",
        "..#.....#...",
        "..#...#####.",
        "..#.....#...",
        "..#.....#...",
        ".###........",
        "............",
    ]


def test_text_that_does_not_fit_is_cut_and_letters_that_are_unknown_are_marked():
    known, unknown = (np.full((16, 30, 3), 255, np.uint8) for _ in range(2))
    write(known, "??????", 0, 0)
    write(unknown, "é[]{}~", 0, 0)
    np.testing.assert_array_equal(known, unknown)
    assert (known < 255).any()
