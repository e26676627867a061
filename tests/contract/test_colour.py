"""Pictures of decoded maps."""

import numpy as np
import pytest

from emadeploy.contract.colour import colourise
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import CLASS_SETS, KINDS, spread_palette


def test_labels_take_the_palette_and_invalid_is_black() -> None:
    task = TaskSpec("semseg", class_names=CLASS_SETS["cityscapes-19"][0], palette=CLASS_SETS["cityscapes-19"][1])
    picture = colourise(np.array([[0, 18, 255]], np.uint8), task)
    assert picture.tolist() == [[[128, 64, 128], [119, 11, 32], [0, 0, 0]]]


def test_labels_without_a_palette_get_one() -> None:
    picture = colourise(np.array([[4]], np.uint8), TaskSpec("semseg", channels=5))
    assert tuple(picture[0, 0]) == spread_palette(5)[4]


def test_depth_runs_from_blue_to_red_and_invalid_is_black() -> None:
    picture = colourise(np.array([[0.0, 1.0, 2.0, 9.0]], np.float32), TaskSpec("depth"), depth_range=(1.0, 2.0))
    invalid, near, far, beyond = picture[0].astype(int)
    assert not invalid.any()
    assert near[2] > near[0]
    assert far[0] > far[2]
    assert (beyond == far).all()


def test_depth_without_a_single_valid_pixel_is_black() -> None:
    assert not colourise(np.zeros((3, 3), np.float32), TaskSpec("depth")).any()


def test_normals_toward_the_camera_are_blue_and_up_is_green() -> None:
    towards, up = (0.0, 0.0, -1.0), (0.0, -1.0, 0.0)
    picture = colourise(np.array([[towards, up, (0, 0, 0)]], np.float32), TaskSpec("normals"))
    assert picture[0, 0].argmax() == 2
    assert picture[0, 1].argmax() == 1
    assert not picture[0, 2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_picture(kind: str) -> None:
    task = TaskSpec(kind, channels=KINDS[kind].channels or 3)
    shape = (4, 5, 3) if kind == "normals" else (4, 5)
    picture = colourise(np.ones(shape, KINDS[kind].dtype), task)
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
