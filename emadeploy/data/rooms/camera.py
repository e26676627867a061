"""The camera: where it stands in a room, where it looks, how wide.

Optical frame: x right, y down, z forward. Pixel (column, row) has its centre at integer coordinates, as in OpenCV.
"""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms.classes import BED, CEILING, FLOOR, SOFA, TV, WALL
from emadeploy.data.rooms.layout import Room
from emadeploy.data.rooms.raycast import RayCaster

_SHELL = frozenset({WALL, FLOOR, CEILING})
_CANDIDATES = 24
_CLEARANCE = 0.25  # metres that the camera keeps from every piece and wall


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in a room.

    position:   (3,) metres.
    rotation:   (3, 3), its rows the optical axes x, y, z in the room's frame.
    half_width: tangent of half the horizontal field of view.
    shift:      principal point, in image widths right of and below the middle.
    """

    position: np.ndarray
    rotation: np.ndarray
    half_width: float
    shift: tuple[float, float]

    def intrinsics(self, height: int, width: int) -> np.ndarray:
        """(3, 3) float64 pinhole matrix with square pixels."""
        focal = width / (2 * self.half_width)
        cx = width * (0.5 + self.shift[0]) - 0.5
        cy = height * 0.5 + width * self.shift[1] - 0.5
        return np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])

    def rays(self, columns: np.ndarray, rows: np.ndarray, height: int, width: int) -> np.ndarray:
        """Directions (N, 3) in the optical frame with z = 1, through image positions in pixels, float64."""
        matrix = self.intrinsics(height, width)
        x = (columns - matrix[0, 2]) / matrix[0, 0]
        y = (rows - matrix[1, 2]) / matrix[1, 1]
        return np.stack([x, y, np.ones_like(x)], axis=-1)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rows x, y, z of a camera that looks along `yaw` (from +x toward +y), `pitch` up, turned by `roll`; radians."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    level = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, level)
    right = np.cos(roll) * level + np.sin(roll) * down
    return np.stack([right, np.cross(forward, right), forward])


def _target(rng: np.random.Generator, room: Room) -> np.ndarray:
    """A point (3,) to look at: mostly a thing, of a class drawn first, so that rare classes are seen as often."""
    if rng.random() < 0.25:
        return rng.uniform(-0.45, 0.45, size=3) * (room.shell.width, room.shell.depth, 1.0) + (0.0, 0.0, 1.0)
    classes = [{part.label for part in placed.piece.parts} - _SHELL for placed in room.placed]
    wanted = sorted(set().union(*classes))
    # Televisions are few and small, beds and sofas few.
    wanted += [label for label in wanted if label in (BED, SOFA, TV)]
    label = wanted[int(rng.integers(len(wanted)))]
    chosen = [placed for placed, labels in zip(room.placed, classes, strict=True) if label in labels]
    return chosen[int(rng.integers(len(chosen)))].box.mean(axis=0)


def _draw(rng: np.random.Generator, room: Room, boxes: np.ndarray) -> Camera | None:
    """A random camera, or None where it is too near to one of the `boxes` (N, 2, 3) or to what it looks at."""
    shell = room.shell
    inside = np.array([shell.width / 2, shell.depth / 2]) - 0.3
    spot = rng.uniform(-1, 1, size=2) * inside
    position = np.array([spot[0], spot[1], rng.uniform(1.2, 1.8)])
    target = _target(rng, room)
    jitter, pitch, roll = rng.normal(0, 0.2), rng.normal(-0.02, 0.14), rng.normal(0, 0.025)
    half_width = np.tan(np.radians(rng.uniform(50, 75)) / 2)
    shift = rng.normal(0, 0.01, size=2)
    away = target[:2] - spot
    distance = np.hypot(*away)
    if distance < 1.0:
        return None
    # Half way toward the height of what is looked at, as people hold cameras.
    pitch += 0.5 * np.arctan2(target[2] - position[2], distance)
    if ((position > boxes[:, 0] - _CLEARANCE) & (position < boxes[:, 1] + _CLEARANCE)).all(axis=1).any():
        return None
    rotation = _rotation(np.arctan2(away[1], away[0]) + jitter, float(np.clip(pitch, -0.6, 0.3)), roll)
    return Camera(position, rotation, float(half_width), (float(shift[0]), float(shift[1])))


def _merit(caster: RayCaster, camera: Camera) -> float:
    """How much a view shows, from a coarse grid of rays: at least 1 means good enough."""
    columns, rows = np.meshgrid(np.arange(20.0), np.arange(15.0))
    rays = camera.rays(columns.ravel(), rows.ravel(), 15, 20)
    hits = caster.cast(camera.position, rays @ camera.rotation)
    met = hits.part >= 0
    if met.mean() < 0.98:
        return 0.0
    labels = caster.scene.labels[hits.part[met]]
    near, middle, far = np.percentile(hits.distance[met], (3, 50, 97))
    things = ~np.isin(labels, list(_SHELL))
    kinds = sum(np.count_nonzero(labels == k) >= 2 for k in np.unique(labels))
    instances = len(np.unique(caster.scene.instances[hits.part[met]][things]))
    parts = (kinds / 6, instances / 7, things.mean() / 0.3, near / 0.45, middle / 1.3, (far - near) / 1.2)
    return float(min(1.0, *parts))


def draw_camera(rng: np.random.Generator, room: Room, caster: RayCaster) -> Camera:
    """The first of some random views that shows enough: several classes and things, depth in it, nothing in the face;
    failing that, the best of them."""
    # The boxes of floor, ceiling and walls hold the whole room.
    boxes = np.array([p.box for p in room.placed if p.piece.name not in ("floor", "ceiling", "wall")]).reshape(-1, 2, 3)
    best: Camera | None = None
    merit, drawn = -1.0, 0
    while drawn < _CANDIDATES or best is None:
        camera = _draw(rng, room, boxes)
        drawn += 1
        if camera is None:
            continue
        found = _merit(caster, camera)
        if found > merit:
            best, merit = camera, found
        if merit >= 1.0:
            break
    assert best is not None
    return best
