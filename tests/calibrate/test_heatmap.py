"""The heat map, read back by a library that this project did not write."""

import math

import numpy as np
import pytest

from emadeploy.calibrate.heatmap import Panel, colour_of, heat_map


def decoded(data: bytes) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_colours_go_from_pale_to_dark_with_the_share_of_the_budget():
    luma = [sum(colour_of(share)) for share in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)]
    assert luma == sorted(luma, reverse=True)
    assert len(set(luma)) == 6
    assert colour_of(-3.0) == colour_of(0.0)
    assert colour_of(math.inf) == colour_of(math.nan) == colour_of(2.0) == colour_of(50.0)


def test_every_cell_has_the_colour_of_its_drop():
    drops = [[0.0, 1.0], [2.0, math.inf], [-1.0, 40.0]]
    panel = Panel("alone", ["semseg, points", "depth, %"], drops, [1.0, 2.0])
    picture = decoded(heat_map(["backbone", "heads.depth", "all"], [panel]))
    found = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {colour_of(share) for share in (0.0, 0.5, 2.0)} <= found
    alone = decoded(heat_map(["backbone", "heads.depth", "all"], [Panel("alone", ["semseg"], [[9.0]] * 3, [1.0])]))
    dark = (alone == colour_of(2.0)).all(axis=2).sum()
    assert dark > 3 * 0.5 * 90 * 28  # three cells, the numbers in them taking less than half


def test_a_budget_of_nothing_is_exceeded_by_anything():
    nothing, something = (
        decoded(heat_map(["a", "b"], [Panel("x", ["y"], [[drop], [drop]], [0.0])])) for drop in (0.0, 0.001)
    )
    dark = [(picture == colour_of(2.0)).all(axis=2).sum() for picture in (nothing, something)]
    assert dark[1] - dark[0] > 2 * 0.5 * 90 * 28  # two cells; the legend has one in both


def test_the_title_stands_above_everything_and_makes_room_for_itself():
    plain, titled = (
        decoded(heat_map(["a", "b"], [Panel("x", ["y"], [[0.0], [0.0]], [1.0])], title=title))
        for title in ("", "m" * 90)
    )
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] > 90 * 12
    assert (titled[12:28, 12 : 12 + 90 * 12] < 128).any(axis=(0, 2)).sum() > 90 * 4
