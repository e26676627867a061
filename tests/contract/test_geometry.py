"""Depth as points and normals: against planes worked out by hand, and made rooms whose truth the renderer knows."""

from collections.abc import Callable

import numpy as np
import pytest

from emadeploy.contract.errors import FrameError, SpecError
from emadeploy.contract.geometry import Intrinsics, back_project, bends, normals_from_depth, point_cloud, shifted

CAMERA = Intrinsics(100.0, 110.0, 31.0, 22.0, 48, 64)


def plane(camera: Intrinsics, normal: tuple[float, float, float], distance: float) -> np.ndarray:
    """The depth (H, W) of the plane ``normal . P = -distance`` (the normal is toward the camera); 0 where behind it."""
    x_W, y_H1 = camera.slopes()
    facing = normal[0] * x_W + normal[1] * y_H1 + normal[2]
    return np.where(facing < -1e-3, -distance / np.minimum(facing, -1e-3), 0).astype(np.float32)


def unit(*vector: float) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector) / np.linalg.norm(vector)
    return float(x), float(y), float(z)


def degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle between unit vectors (..., 3); exact for small angles."""
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(one - other, axis=-1) / 2, 0, 1)))


# The camera.


def test_a_pixel_is_projected_back_where_it_came_from() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 5, CAMERA.size).astype(np.float32)
    points = back_project(depth, CAMERA)
    assert (points.shape, points.dtype) == ((48, 64, 3), np.float32)
    np.testing.assert_array_equal(points[:, :, 2], depth)
    columns = CAMERA.fx * points[:, :, 0] / points[:, :, 2] + CAMERA.cx
    rows = CAMERA.fy * points[:, :, 1] / points[:, :, 2] + CAMERA.cy
    np.testing.assert_allclose(columns, np.broadcast_to(np.arange(64), (48, 64)), atol=1e-4)
    np.testing.assert_allclose(rows, np.broadcast_to(np.arange(48)[:, None], (48, 64)), atol=1e-4)
    # x right, y down, z forward.
    assert points[0, 63, 0] > 0 > points[0, 63, 1]


def test_a_field_of_view_is_that_of_the_outermost_edges() -> None:
    camera = Intrinsics.from_fov((48, 64), 90)
    assert (camera.fx, camera.fy) == (pytest.approx(32), pytest.approx(32))
    left, right = ((edge - camera.cx) / camera.fx for edge in (-0.5, 63.5))
    assert np.degrees(np.arctan(right) - np.arctan(left)) == pytest.approx(90)


def test_a_matrix_as_opencv_and_ros_have_it() -> None:
    matrix = [[100, 0, 31], [0, 110, 22], [0, 0, 1]]
    assert Intrinsics.from_matrix(matrix, (48, 64)) == CAMERA
    assert Intrinsics.from_matrix(np.ravel(matrix), (48, 64)) == CAMERA


@pytest.mark.parametrize("size", [(96, 128), (24, 32), (30, 100)])
def test_a_scaled_camera_sees_the_same(size: tuple[int, int]) -> None:
    scaled = CAMERA.scaled(size)
    assert scaled.size == size
    for edge in (-0.5, 0.3, 1.0):  # the border of the image, and two places in it, as shares of its extents
        x = ((edge + 0.5) * 64 - 0.5 - CAMERA.cx) / CAMERA.fx
        assert ((edge + 0.5) * size[1] - 0.5 - scaled.cx) / scaled.fx == pytest.approx(x)
        y = ((edge + 0.5) * 48 - 0.5 - CAMERA.cy) / CAMERA.fy
        assert ((edge + 0.5) * size[0] - 0.5 - scaled.cy) / scaled.fy == pytest.approx(y)
    # Maps of another size than the camera's are taken as scaled.
    depth = plane(scaled, unit(0.3, -0.2, -1), 2.0)
    np.testing.assert_array_equal(back_project(depth, CAMERA), back_project(depth, scaled))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Intrinsics(0, 1, 0, 0, 4, 4), "intrinsics: fx 0 is not positive"),
        (lambda: Intrinsics(1, float("nan"), 0, 0, 4, 4), "fy nan is not positive"),
        (lambda: Intrinsics(1, 1, float("inf"), 0, 4, 4), "cx inf is not finite"),
        (lambda: Intrinsics(1, 1, 0, 0, 0, 4), "height 0 is not positive"),
        (lambda: Intrinsics.from_fov((4, 4), 180), "field of view of 180 degrees"),
        (lambda: Intrinsics.from_matrix(np.eye(4), (4, 4)), "a matrix of 16 numbers; expected 3 x 3"),
    ],
)
def test_cameras_that_cannot_be(make: Callable[[], Intrinsics], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        make()


# Points.


def test_points_are_the_pixels_that_have_a_depth() -> None:
    depth = plane(CAMERA, unit(0.2, 0.1, -1), 3.0)
    depth[0, 0], depth[1, 1], depth[2, 2], depth[3, 3] = 0, np.nan, np.inf, -1
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    labels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    cloud = point_cloud(depth, CAMERA, frame=frame, labels=labels, normals=normals_from_depth(depth, CAMERA))
    assert cloud.points.shape == (48 * 64 - 4, 3)
    assert cloud.points.dtype == np.float32
    assert np.isfinite(cloud.points).all()
    np.testing.assert_array_equal(cloud.points, back_project(depth, CAMERA)[cloud.rows, cloud.columns])
    np.testing.assert_array_equal(cloud.colours, frame[cloud.rows, cloud.columns])
    np.testing.assert_array_equal(cloud.labels, cloud.rows * 64 + cloud.columns)
    assert cloud.normals is not None
    assert cloud.normals.shape == cloud.points.shape


def test_points_in_steps_and_within_reach() -> None:
    depth = np.full(CAMERA.size, 2.0, np.float32)
    depth[:, 32:] = 5.0
    cloud = point_cloud(depth, CAMERA, step=4, farthest=3.0)
    assert len(cloud.points) == 12 * 8
    assert set(cloud.columns) == set(range(0, 32, 4))
    assert cloud.colours is cloud.labels is cloud.normals is None
    assert point_cloud(np.zeros_like(depth), CAMERA).points.shape == (0, 3)


def test_what_is_no_map() -> None:
    depth = np.ones(CAMERA.size, np.float32)
    with pytest.raises(FrameError, match=r"depth of shape \(48, 64, 1\) and type float32; expected floats"):
        back_project(depth[:, :, None], CAMERA)
    with pytest.raises(FrameError, match="type uint16"):
        normals_from_depth(depth.astype(np.uint16), CAMERA)
    with pytest.raises(FrameError, match=r"labels of shape \(24, 64\) with depth of shape \(48, 64\)"):
        point_cloud(depth, CAMERA, labels=np.zeros((24, 64), np.uint8))
    with pytest.raises(SpecError, match="step 0"):
        point_cloud(depth, CAMERA, step=0)


# Normals.


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0, -1), (0, -1, -0.3), (-0.7, 0.7, -0.4), (0.1, -2, -1)])
def test_normals_of_planes_are_exact(normal: tuple[float, float, float], reach: int) -> None:
    depth = plane(CAMERA, unit(*normal), 1.7)
    normals = normals_from_depth(depth, CAMERA, reach=reach)
    known = normals.any(axis=2)
    assert known[depth > 0].mean() > 0.9
    assert not normals[depth == 0].any()
    assert degrees(normals, np.float32(unit(*normal)))[known].max() < 0.1
    # The unit of the depth does not matter.
    np.testing.assert_allclose(normals_from_depth(1000 * depth, CAMERA, reach=reach), normals, atol=1e-3)


def test_a_jump_in_depth_is_no_surface() -> None:
    near, far = plane(CAMERA, unit(0.5, 0, -1), 1.0), plane(CAMERA, unit(0, 0.4, -1), 4.0)
    depth = far.copy()
    depth[10:40, 20:45] = near[10:40, 20:45]
    normals = normals_from_depth(depth, CAMERA, reach=2)
    inside = np.zeros(CAMERA.size, bool)
    inside[10:40, 20:45] = True
    assert degrees(normals, np.float32(unit(0.5, 0, -1)))[inside].max() < 0.1
    assert degrees(normals, np.float32(unit(0, 0.4, -1)))[~inside].max() < 0.1


def test_holes_have_no_normal_and_harm_no_neighbour() -> None:
    depth = plane(CAMERA, unit(0.3, 0.3, -1), 2.0)
    holes = np.random.default_rng(0).random(CAMERA.size) < 0.05
    depth[holes] = np.random.default_rng(1).choice([0, np.nan, np.inf, -2], holes.sum())
    normals = normals_from_depth(depth, CAMERA)
    assert not normals[holes].any()
    known = normals.any(axis=2)
    assert known[~holes].mean() > 0.9
    assert degrees(normals, np.float32(unit(0.3, 0.3, -1)))[known].max() < 0.1
    assert np.isfinite(normals).all()
    assert not normals_from_depth(np.zeros((5, 5), np.float32), CAMERA).any()
    assert not normals_from_depth(np.ones((1, 1), np.float32), CAMERA).any()


def test_normals_of_rooms_are_those_of_the_renderer() -> None:
    pytest.importorskip("embreex")
    from emadeploy.data.rooms.render import render_room

    for index in range(3):
        room = render_room(3, index, 144, 192)
        camera = Intrinsics.from_matrix(room.intrinsics, room.depth.shape)
        normals = normals_from_depth(room.depth, camera)
        known = normals.any(axis=2) & room.normals.any(axis=2)
        assert known.mean() > 0.95
        # Off edges: where the truth is one surface two pixels around.
        for axis in (0, 1):
            for offset in (-2, -1, 1, 2):
                known &= degrees(room.normals, shifted(room.normals, offset, axis)) < 1
        assert known.mean() > 0.3
        angle = degrees(normals, room.normals)[known]
        assert np.median(angle) < 0.5
        assert np.quantile(angle, 0.95) < 3
        flipped = degrees(normals * np.float32([1, -1, 1]), room.normals)[known]
        assert np.median(flipped) > 5


def test_surfaces_bend_at_creases_and_jumps_alone() -> None:
    floor, wall = plane(CAMERA, unit(0, -1, -0.2), 1.5), plane(CAMERA, unit(0, 0, -1), 6.0)
    depth = np.where((floor > 0) & (floor < wall), floor, wall)
    crease = np.flatnonzero(np.diff((depth == wall).astype(int)[:, 0]))
    bend = bends(depth)
    assert np.isnan(bend).sum() == 4  # the corners have no neighbours on both sides
    bend = bend[1:-1]
    rows = np.arange(1, 47)
    far = np.abs(rows - crease[0]) > 2
    assert bend[far].max() < 1e-5
    assert bend[~far].max() > 100 * bend[far].max()
    depth[depth == wall] = 0
    assert np.isnan(bends(depth)[0, 0])
