"""The ground truth of made rooms is exact, and the same for whoever asks."""

import hashlib
import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("embreex")

from emadeploy.data.rooms import CLASS_NAMES, RoomFrame, render_room
from emadeploy.data.rooms.camera import Camera, _rotation
from emadeploy.data.rooms.classes import CEILING, FLOOR, WALL
from emadeploy.data.rooms.layout import MAX_OBJECTS, MIN_OBJECTS, Room
from emadeploy.data.rooms.lighting import draw_lights
from emadeploy.data.rooms.raycast import RayCaster
from emadeploy.data.rooms.recipes import furnish
from emadeploy.data.rooms.render import View, draw_view, render_view
from emadeploy.data.rooms.scene import assemble
from emadeploy.data.rooms.sensor import draw_sensor
from emadeploy.data.rooms.shell import Shell, build_shell

SMALL = (48, 64)
FIELDS = ("image", "depth", "normals", "semseg", "edge", "intrinsics")

frame_numbers = st.tuples(st.integers(0, 2**31), st.integers(0, 10_000))


def assert_same(first: RoomFrame, second: RoomFrame) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def rays(frame: RoomFrame) -> np.ndarray:
    """(H, W, 3) float64 directions with z = 1 through the pixel centres."""
    rows, columns = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1).astype(np.float64)
    return pixels @ np.linalg.inv(frame.intrinsics).T


def empty_room(width: float, depth: float, height: float, camera: Camera) -> View:
    rng = np.random.default_rng(0)
    shell = Shell(width, depth, height, ((), (), (), ()), 1.0)
    room = Room(shell, tuple(build_shell(rng, shell)), 0)
    scene = assemble(room)
    return View(scene, RayCaster(scene), draw_lights(rng, room), camera, draw_sensor(rng), 0)


@settings(max_examples=6, deadline=None)
@given(frame_numbers)
def test_a_frame_is_well_formed(numbers):
    frame = render_room(*numbers, *SMALL)
    assert frame.image.shape == (*SMALL, 3)
    assert frame.image.dtype == np.uint8
    assert frame.depth.shape == SMALL
    assert frame.depth.dtype == np.float32
    assert frame.normals.shape == (*SMALL, 3)
    assert frame.normals.dtype == np.float32
    assert frame.semseg.shape == SMALL
    assert frame.semseg.dtype == np.int16
    assert frame.edge.dtype == np.uint8
    assert frame.intrinsics.dtype == np.float64
    assert set(np.unique(frame.edge)) <= {0, 1}
    assert frame.semseg.min() >= -1
    assert frame.semseg.max() < len(CLASS_NAMES)
    known = frame.semseg >= 0
    assert known.mean() > 0.99
    np.testing.assert_array_equal(known, frame.depth > 0)
    assert np.all(frame.normals[~known] == 0)


@settings(max_examples=6, deadline=None)
@given(frame_numbers)
def test_normals_are_unit_and_face_the_camera(numbers):
    frame = render_room(*numbers, *SMALL)
    known = frame.semseg >= 0
    np.testing.assert_allclose(np.linalg.norm(frame.normals[known], axis=-1), 1, atol=1e-6)
    assert np.all(np.sum(frame.normals * rays(frame), axis=-1)[known] < 0)


@settings(max_examples=6, deadline=None)
@given(frame_numbers)
def test_depth_and_normals_describe_the_same_planes(numbers):
    """Where three neighbours have one normal and no edge between them, their points span a plane with that normal."""
    frame = render_room(*numbers, 96, 128)
    points = rays(frame) * frame.depth[..., None].astype(np.float64)
    here, right, below = points[:-1, :-1], points[:-1, 1:], points[1:, :-1]
    n = frame.normals.astype(np.float64)
    one_normal = (n[:-1, :-1] == n[:-1, 1:]).all(-1) & (n[:-1, :-1] == n[1:, :-1]).all(-1)
    # Parallel surfaces one behind the other share a normal but no plane: only their offset can tell, so near ones stay.
    offset = np.abs(np.sum(n[:-1, :-1] * (right - here), axis=-1)) + np.abs(
        np.sum(n[:-1, :-1] * (below - here), axis=-1)
    )
    chosen = one_normal & (offset < 2e-3)
    assert chosen.mean() > 0.4
    assert (one_normal & ~chosen).mean() < 0.2
    # Depth is float32: about 2e-7 of a few metres.
    assert offset[chosen & (offset < 1e-4)].size > 0.98 * chosen.sum()
    spanned = np.cross(right - here, below - here)[chosen]
    spanned /= np.linalg.norm(spanned, axis=-1, keepdims=True)
    error = np.degrees(np.arccos(np.clip(np.abs(np.sum(spanned * n[:-1, :-1][chosen], axis=-1)), 0, 1)))
    assert np.median(error) < 0.02


@settings(max_examples=6, deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(1.0, 2.0), st.floats(0.4, 0.75), st.integers(0, 3))
def test_an_empty_room_is_as_computed_by_hand(x, y, z, half_width, quarter):
    """A level camera that looks straight at a wall: depth and normals of wall, floor and ceiling have closed forms."""
    width, depth, height = 4.0, 3.5, 2.6
    yaw = quarter * np.pi / 2
    camera = Camera(np.array([x, y, z]), _rotation(yaw, 0.0, 0.0), half_width, (0.0, 0.0))
    frame = render_view(empty_room(width, depth, height, camera), *SMALL)
    ahead = (width / 2 - x, depth / 2 - y, width / 2 + x, depth / 2 + y)[quarter]
    facing = (frame.semseg == WALL) & (frame.normals[..., 2] < -0.999)
    # The skirting board stands 14 mm out of the wall; above it the wall is all that is left.
    points = rays(frame) * frame.depth[..., None]
    wall = facing & (points[..., 1] < z - 0.15)
    assert wall.any()
    np.testing.assert_allclose(frame.depth[wall], ahead, rtol=1e-6)
    np.testing.assert_allclose(frame.normals[wall], np.broadcast_to([0, 0, -1], (wall.sum(), 3)), atol=1e-6)
    for label, drop, normal in ((FLOOR, z, (0, -1, 0)), (CEILING, z - height, (0, 1, 0))):
        seen = frame.semseg == label
        np.testing.assert_allclose(frame.depth[seen], drop / rays(frame)[..., 1][seen], rtol=1e-5)
        np.testing.assert_allclose(frame.normals[seen], np.broadcast_to(normal, (seen.sum(), 3)), atol=1e-6)


def test_the_same_frame_comes_whatever_was_rendered_before():
    first = [render_room(5, index, *SMALL) for index in (0, 1, 2)]
    np.random.seed(1)  # the global state must not matter
    for index in (2, 0, 1):
        assert_same(first[index], render_room(5, index, *SMALL))
    assert not np.array_equal(first[0].image, first[1].image)
    assert not np.array_equal(first[0].image, render_room(6, 0, *SMALL).image)


def digest(frame: RoomFrame) -> str:
    return hashlib.sha256(b"".join(getattr(frame, name).tobytes() for name in FIELDS)).hexdigest()


def test_the_same_frame_comes_in_another_process():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        other = pool.submit(render_room, 8, 3, *SMALL).result()
    assert digest(other) == digest(render_room(8, 3, *SMALL))


@pytest.mark.parametrize("index", [0, 4])
def test_two_sizes_show_the_same_scene(index):
    """At three times the size, every third pixel centre looks along the same ray."""
    small, large = render_room(9, index, 32, 48), render_room(9, index, 96, 144)
    inner = (slice(1, None, 3), slice(1, None, 3))
    same = small.semseg == large.semseg[inner]
    assert same.mean() > 0.995
    np.testing.assert_allclose(small.depth[same], large.depth[inner][same], rtol=1e-4)
    np.testing.assert_allclose(small.intrinsics[0, 0] * 3, large.intrinsics[0, 0])
    blurred = large.image.reshape(32, 3, 48, 3, 3).mean(axis=(1, 3))
    assert np.abs(blurred - small.image).mean() < 12


def test_edges_lie_where_classes_change():
    frame = render_room(2, 1, 96, 128)
    change = frame.semseg[:, :-1] != frame.semseg[:, 1:]
    assert np.all(frame.edge[:, :-1][change] | frame.edge[:, 1:][change])
    assert 0.005 < frame.edge.mean() < 0.35


def test_all_classes_are_seen_and_none_by_its_colour():
    frames = [render_room(1, index, 24, 32) for index in range(40)]
    seen = set(itertools.chain.from_iterable(np.unique(f.semseg).tolist() for f in frames))
    assert seen >= set(range(len(CLASS_NAMES)))
    # The spread of a class's mean colour over rooms is of the order of its distance to the other classes.
    means = {
        label: np.array([f.image[f.semseg == label].mean(axis=0) for f in frames if np.sum(f.semseg == label) > 15])
        for label in seen
    }
    centres = np.array([values.mean(axis=0) for label, values in means.items() if len(values) > 8])
    spreads = np.array([values.std(axis=0).mean() for values in means.values() if len(values) > 8])
    assert spreads.min() > 20
    assert np.median(np.linalg.norm(centres - centres.mean(axis=0), axis=1)) < 2.5 * np.median(spreads)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_rooms_hold_5_to_20_objects_inside_their_walls(seed):
    room = furnish(np.random.default_rng(seed))
    assert MIN_OBJECTS == 5
    assert MAX_OBJECTS == 20
    assert MIN_OBJECTS <= room.objects <= MAX_OBJECTS
    assert len({p.instance for p in room.placed if p.piece.name != "wall"}) == sum(
        p.piece.name != "wall" for p in room.placed
    )
    half = np.array([room.shell.width, room.shell.depth]) / 2
    for placed in room.placed:
        if placed.piece.name in ("wall", "window"):
            continue
        low, high = placed.box
        assert np.all(low[:2] >= -half - 0.01), placed.piece.name
        assert np.all(high[:2] <= half + 0.01), placed.piece.name
        assert low[2] >= -0.01, placed.piece.name
        assert high[2] <= room.shell.height + 0.01, placed.piece.name


@settings(max_examples=5, deadline=None)
@given(frame_numbers)
def test_the_camera_stands_free_at_eye_height(numbers):
    view = draw_view(*numbers)
    assert 1.2 <= view.camera.position[2] <= 1.8
    assert 50 <= 2 * np.degrees(np.arctan(view.camera.half_width)) <= 75
    frame = render_view(view, *SMALL)
    assert np.percentile(frame.depth, 1) > 0.2
    assert len(np.unique(frame.semseg)) >= 3


@pytest.mark.parametrize("arguments", [(-1, 0), (0, -1), (0, 0, 4, 64)])
def test_senseless_requests_are_refused(arguments):
    with pytest.raises(ValueError, match=r"negative|8 x 8"):
        render_room(*arguments)
