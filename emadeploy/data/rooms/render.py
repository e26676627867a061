"""One frame: image and ground truth of a room."""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms.camera import Camera, draw_camera
from emadeploy.data.rooms.classes import UNLABELLED
from emadeploy.data.rooms.lighting import Lights, draw_lights, openness, visibility
from emadeploy.data.rooms.raycast import Hits, RayCaster
from emadeploy.data.rooms.recipes import furnish
from emadeploy.data.rooms.scene import Scene, assemble
from emadeploy.data.rooms.sensor import Sensor, draw_sensor, expose
from emadeploy.data.rooms.shading import shade
from emadeploy.data.rooms.surfaces import NEIGHBOURS, Surfaces, spread

# Counts up whenever the frames of a seed change, so that no cache mixes two generators.
GENERATOR_VERSION = 3

# Where the extra rays of a pixel at an outline go, in pixels from its centre; the centre itself counts as one more.
_SUBPIXELS = ((-0.38, -0.14), (0.3, -0.3), (0.08, 0.4))


@dataclass(frozen=True)
class RoomFrame:
    """An image with its ground truth; the optical frame has x right, y down, z forward.

    image:      (H, W, 3) uint8 RGB.
    depth:      (H, W) float32 metres along the optical axis, 0 where unknown.
    normals:    (H, W, 3) float32 unit, toward the camera, 0 where unknown.
    semseg:     (H, W) int16, an index into CLASS_NAMES, -1 where unlabelled.
    edge:       (H, W) uint8, 1 at outlines of things and classes and at jumps in depth.
    intrinsics: (3, 3) float64 pinhole matrix; pixel centres have integer coordinates.
    """

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    semseg: np.ndarray
    edge: np.ndarray
    intrinsics: np.ndarray


@dataclass(frozen=True)
class View:
    """A scene, its light and the camera in it: all of a frame that does not depend on the resolution."""

    scene: Scene
    caster: RayCaster
    lights: Lights
    camera: Camera
    sensor: Sensor
    objects: int


def draw_view(seed: int, index: int) -> View:
    """The scene of frame `index` of `seed`, both non-negative; every frame has random streams of its own.

    Raises ValueError for a negative seed or index, BackendMissing where embreex is not installed.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got seed {seed}, index {index}")
    streams = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence([seed, index]).spawn(4)]
    room = furnish(streams[0])
    scene = assemble(room)
    caster = RayCaster(scene)
    camera = draw_camera(streams[1], room, caster)
    return View(scene, caster, draw_lights(streams[2], room), camera, draw_sensor(streams[3]), room.objects)


def _edges(hits: Hits, scene: Scene, depth: np.ndarray) -> np.ndarray:
    """(H, W) uint8: where neighbours belong to other things, or to planes that lie apart; marked on the nearer one."""
    shape = depth.shape
    label = np.where(hits.part >= 0, scene.labels[hits.part], UNLABELLED).reshape(shape)
    thing = np.where(hits.part >= 0, scene.instances[hits.part], -1).reshape(shape)
    normal, point = hits.normal.reshape(*shape, 3), hits.point.reshape(*shape, 3)
    result = np.zeros(shape, dtype=np.uint8)
    for a, b in NEIGHBOURS:
        step = point[b] - point[a]
        near = np.minimum(depth[a], depth[b])
        # A slanted surface is no jump: its neighbour lies in its own plane, seen from one of the two at least.
        off_a, off_b = (np.abs(np.einsum("hwc,hwc->hw", step, normal[side])) for side in (a, b))
        jump = (np.minimum(off_a, off_b) > 0.03 + 0.01 * near) & (np.abs(depth[a] - depth[b]) > 0.04 * near)
        found = (label[a] != label[b]) | (thing[a] != thing[b]) | jump
        first_nearer = depth[a] <= depth[b]
        result[a] |= found & first_nearer
        result[b] |= found & ~first_nearer
    return result


class _Renderer:
    """Colour and ground truth of one view at one resolution."""

    def __init__(self, view: View, height: int, width: int) -> None:
        self.view, self.height, self.width = view, height, width
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        self.rays, self.hits = self._cast(columns, rows)
        self.surfaces = Surfaces(self.hits, (height, width))

    def _cast(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Hits]:
        camera = self.view.camera
        rays = camera.rays(columns, rows, self.height, self.width)
        return rays, self.view.caster.cast(camera.position, rays @ camera.rotation)

    def _shade(self, rays: np.ndarray, hits: Hits, visible: np.ndarray, open_: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(rays, axis=1)
        directions = rays @ self.view.camera.rotation / length[:, None]
        slope = np.abs(np.einsum("nc,nc->n", directions, hits.normal))
        focal = self.width / (2 * self.view.camera.half_width)
        footprint = (hits.distance * length / focal / np.sqrt(np.maximum(slope, 0.05))).astype(np.float32)
        return shade(self.view.scene, self.view.lights, hits, directions, footprint, visible, open_)

    def radiance(self) -> np.ndarray:
        """(H, W, 3) float32 linear colour, smooth at outlines."""
        view, hits, count = self.view, self.hits, self.height * self.width

        def shadows(pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
            return visibility(view.caster, view.lights, hits.point[pixel], hits.normal[pixel], phase)

        def corners(pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
            return openness(view.caster, hits.point[pixel], hits.normal[pixel], phase)[:, None]

        visible = spread(self.surfaces, max(1, round(self.height / 144)), shadows).reshape(count, -1)
        open_ = spread(self.surfaces, max(1, round(self.height / 96)), corners).reshape(count)
        colour = self._shade(self.rays, hits, visible, open_)
        outline = np.flatnonzero(self.surfaces.outlines())
        colour[outline] = self._smooth(outline, colour[outline], visible, open_)
        return colour.reshape(self.height, self.width, 3)

    def _smooth(self, chosen: np.ndarray, centre: np.ndarray, visible: np.ndarray, open_: np.ndarray) -> np.ndarray:
        """(n, 3) colours of pixels at outlines, from several rays each; their light is that of a like pixel nearby."""
        own = np.repeat(chosen, len(_SUBPIXELS))
        offsets = np.tile(np.array(_SUBPIXELS), (len(chosen), 1))
        rows, columns = np.divmod(own, self.width)
        rays, hits = self._cast(columns + offsets[:, 0], rows + offsets[:, 1])
        here = Surfaces(hits, (len(own),))
        source = own.copy()
        open_question = np.ones(len(own), dtype=bool)
        for dr, dc in ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            todo = np.flatnonzero(open_question)
            at = (np.clip(rows[todo] + dr, 0, self.height - 1), np.clip(columns[todo] + dc, 0, self.width - 1))
            alike = here.match((todo,), self.surfaces, at)
            source[todo[alike]] = (at[0] * self.width + at[1])[alike]
            open_question[todo[alike]] = False
        colour = self._shade(rays, hits, visible[source], open_[source])
        # One very bright sample must not outweigh its dark neighbours, or lamps and windows would grow jagged rims.
        extra = np.minimum(colour, 2.0).reshape(len(chosen), len(_SUBPIXELS), 3).sum(axis=1)
        return (np.minimum(centre, 2.0) + extra) / np.float32(len(_SUBPIXELS) + 1)


def render_view(view: View, height: int, width: int) -> RoomFrame:
    """Image and ground truth of a view at one size."""
    if height < 8 or width < 8:
        raise ValueError(f"a frame needs at least 8 x 8 pixels, got {height} x {width}")
    renderer = _Renderer(view, height, width)
    hits, scene, camera = renderer.hits, view.scene, view.camera
    depth = hits.distance.reshape(height, width)
    normals = (hits.normal @ camera.rotation.T).reshape(height, width, 3)
    known = hits.part.reshape(height, width) >= 0
    return RoomFrame(
        image=expose(view.sensor, renderer.radiance()),
        depth=depth.astype(np.float32),
        normals=normals.astype(np.float32),
        semseg=np.where(known, scene.labels[hits.part].reshape(height, width), UNLABELLED).astype(np.int16),
        edge=_edges(hits, scene, depth),
        intrinsics=camera.intrinsics(height, width),
    )


def render_room(seed: int, index: int, height: int = 288, width: int = 384) -> RoomFrame:
    """Frame `index` of the endless sequence `seed`: always the same one, whatever else is rendered.

    The scene and the camera are the same at every size (the horizontal field of view is kept).
    Raises ValueError for a negative seed or index or a size below 8, BackendMissing where embreex is not installed.
    """
    return render_view(draw_view(seed, index), height, width)
