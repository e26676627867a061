"""Intrinsics of frames: recorded, binned, cut out, resized, rectified, or given."""

from dataclasses import replace

import numpy as np
import pytest

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.geometry import Intrinsics
from emadeploy.robotics.camera_info import CameraInfo
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.lens import Lens

K = (500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0)
P = (480.0, 0.0, 310.0, 0.0, 0.0, 490.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CAMERA = CameraInfo(480, 640, K, P)


def frame(height: int, width: int, camera: CameraInfo | None = None) -> Frame:
    return Frame("a", np.zeros((height, width, 3), np.uint8), 0.0, camera=camera)


def test_the_full_image() -> None:
    assert CAMERA.intrinsics((480, 640)) == Intrinsics(500, 510, 319.5, 239.5, 480, 640)
    assert replace(CAMERA, rectified=True).intrinsics((480, 640)) == Intrinsics(480, 490, 310, 230, 480, 640)
    # Nobody rectified it after all.
    assert replace(CAMERA, rectified=True, p=(0.0,) * 12).intrinsics((480, 640)).fx == 500


def test_an_image_that_was_resized_since() -> None:
    half = CAMERA.intrinsics((240, 320))
    assert (half.fx, half.fy, half.cx, half.cy) == (250, 255, 159.5, 119.5)
    # As encoders of video round it.
    assert CAMERA.intrinsics((272, 360)).size == (272, 360)


def test_binning_and_a_region_of_interest() -> None:
    binned = replace(CAMERA, binning=(2, 2)).intrinsics((240, 320))
    assert binned == CAMERA.intrinsics((240, 320))
    region = replace(CAMERA, roi=(100, 40, 200, 300, False)).intrinsics((200, 300))
    assert region == Intrinsics(500, 510, 219.5, 199.5, 200, 300)
    both = replace(CAMERA, roi=(100, 40, 200, 300, False), binning=(2, 2)).intrinsics((100, 150))
    assert both == region.scaled((100, 150))


def test_what_does_not_fit() -> None:
    with pytest.raises(
        DataError, match=r"of 640 x 480 pixels \(width x height\), the image has 400 x 400: something cropped"
    ):
        CAMERA.intrinsics((400, 400))
    with pytest.raises(DataError, match="is all zeros: the camera is not calibrated"):
        replace(CAMERA, k=(0.0,) * 9).intrinsics((480, 640))
    with pytest.raises(DataError, match=r"makes no sense: intrinsics: fy -1.0 is not positive"):
        replace(CAMERA, k=(*K[:4], -1.0, *K[5:])).intrinsics((480, 640))
    with pytest.raises(DataError, match="makes no sense: intrinsics: height 0 is not positive"):
        CameraInfo(0, 640, K, P).intrinsics((480, 640))


def test_a_lens_follows_the_recorded_camera_and_says_once_what_is_wrong() -> None:
    said: list[str] = []
    lens = Lens(None, said.append)
    assert lens.of(frame(480, 640, CAMERA)) == CAMERA.intrinsics((480, 640))
    assert lens.of(frame(240, 320, CAMERA)) == CAMERA.intrinsics((240, 320))
    assert lens.info(frame(480, 640, CAMERA)) is CAMERA
    assert said == []
    bent = replace(CAMERA, d=(-0.3, 0.1, 0.0, 0.0, 0.0))
    for _ in range(3):
        assert lens.of(frame(480, 640, bent)) is not None
        assert lens.of(frame(100, 640, CAMERA)) is None
        assert lens.of(frame(480, 640)) is None
    assert [message.split(":")[0] for message in said] == ["the images are not rectified", "no points", "no points"]
    assert lens.of(frame(480, 640, replace(bent, rectified=True))) is not None
    assert lens.info(frame(480, 640)) is None
    assert len(said) == 3


def test_what_is_given_goes_before_what_is_recorded() -> None:
    given = Lens("100, 110, 50, 40")
    assert given.of(frame(80, 90, CAMERA)) == Intrinsics(100, 110, 50, 40, 80, 90)
    info = given.info(frame(80, 90, CAMERA))
    assert info is not None
    assert info.intrinsics((80, 90)) == Intrinsics(100, 110, 50, 40, 80, 90)
    scaled = Lens("500,510,319.5,239.5@640x480")
    assert scaled.of(frame(240, 320)) == CAMERA.intrinsics((240, 320))
    said: list[str] = []
    assert Lens("500,510,319.5,239.5@640x480", said.append).of(frame(300, 300)) is None
    assert "something cropped it" in said[0]
    assert Lens("fov:60").of(frame(480, 640)) == Intrinsics.from_fov((480, 640), 60)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4@5", "fov:", "fov:wide", "a,b,c,d", "1,2,3,4,5", "1e,2,3,4"])
def test_texts_that_are_no_intrinsics(text: str) -> None:
    with pytest.raises(SpecError, match=r"--intrinsics .*: expected FX,FY,CX,CY in pixels"):
        Lens(text)


@pytest.mark.parametrize("text", ["0,2,3,4", "fov:180", "5,-5,1,1@10x10", "1,1,1,1@0x10"])
def test_cameras_that_cannot_be(text: str) -> None:
    with pytest.raises(SpecError, match=r"--intrinsics '.*': (intrinsics: .* is not positive|a field of view of 180)"):
        Lens(text)
