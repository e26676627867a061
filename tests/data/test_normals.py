"""Normals out of depth, against planes and a sphere whose normals are known."""

import numpy as np
import pytest

from emadeploy.data.normals import RADIUS, Intrinsics, normals_from_depth

CAMERA = Intrinsics(fx=60.0, fy=62.0, cx=31.5, cy=23.5)
SHAPE = (48, 64)


def rays() -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    return np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(SHAPE)], axis=2)


def plane(normal: np.ndarray, distance: float) -> np.ndarray:
    """Return the depth of the plane with ``normal`` (toward the camera) at ``distance``."""
    return (-distance / (rays() @ normal)).astype(np.float32)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0, -1, -0.6), (0.5, 0.2, -1), (-0.7, 0.1, -1)])
def test_a_plane_has_its_normal_everywhere(normal):
    unit = np.array(normal) / np.linalg.norm(normal)
    found = normals_from_depth(plane(unit, 2.5), CAMERA)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(unit, found.shape), atol=2e-4)


def test_a_sphere_has_normals_from_its_centre():
    centre, radius = np.array([0.0, 0.0, 4.0]), 3.0
    direction = rays()
    a, b, c = (direction**2).sum(2), -2 * direction @ centre, centre @ centre - radius**2
    depth = (-b - np.sqrt(b * b - 4 * a * c)) / (2 * a)
    points = direction * depth[..., None]
    found = normals_from_depth(depth.astype(np.float32), CAMERA, radius=2)
    inside = np.s_[6:-6, 6:-6]
    angle = np.degrees(np.arccos(np.clip((found * (points - centre) / radius).sum(2)[inside], -1, 1)))
    assert angle.max() < 2


def test_what_is_unknown_stays_unknown_and_is_not_used():
    depth = plane(np.array([0.0, 0.0, -1.0]), 2.0)
    depth[:, :20] = 0
    found = normals_from_depth(depth, CAMERA)
    assert not found[:, :20].any()
    np.testing.assert_allclose(found[:, 20 + RADIUS :], np.broadcast_to((0, 0, -1), (48, 40, 3)), atol=1e-5)
    assert not normals_from_depth(np.zeros(SHAPE, np.float32), CAMERA).any()


def test_a_pixel_amid_nothing_has_none():
    depth = np.zeros(SHAPE, np.float32)
    depth[20, 30] = depth[24, 24:36] = 2
    assert not normals_from_depth(depth, CAMERA).any()


def test_no_plane_is_laid_across_a_step():
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:, 32:] = 4
    found = normals_from_depth(depth, CAMERA)
    assert not found[:, 32 - RADIUS + 1 : 32 + RADIUS - 1].any()
    np.testing.assert_allclose(found[:, : 32 - RADIUS], np.broadcast_to((0, 0, -1), (48, 28, 3)), atol=1e-5)


def test_steps_of_a_kinect_do_not_tilt_a_wall():
    # A Kinect's inverse depth comes in steps: 0.00285 per metre of one eighth of a pixel (Khoshelham, Elberink 2012).
    unit = np.array([0.3, 0.0, -1.0]) / np.linalg.norm([0.3, 0.0, -1.0])
    inverse = np.rint(1 / plane(unit, 2.5) / 0.00285) * 0.00285
    found = normals_from_depth((1 / inverse).astype(np.float32), CAMERA)
    angle = np.degrees(np.arccos(np.clip(found @ unit, -1, 1)))
    assert np.median(angle) < 3


def test_they_are_those_of_a_made_room():
    pytest.importorskip("embreex")
    from emadeploy.data.rooms.render import render_room

    room = render_room(7, 0, 96, 128)
    matrix = room.intrinsics
    camera = Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    found = normals_from_depth(room.depth, camera, radius=2)
    both = found.any(axis=2) & room.normals.any(axis=2)
    assert both.mean() > 0.6
    angle = np.degrees(np.arccos(np.clip((found * room.normals).sum(axis=2)[both], -1, 1)))
    assert np.median(angle) < 1
    assert angle.mean() < 10
