"""Which triangle a ray meets, by embree; where exactly, in float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from emadeploy.contract.errors import BackendMissing
from emadeploy.data.rooms.scene import Scene


@dataclass(frozen=True)
class Hits:
    """What N rays met. `distance` counts in lengths of the ray's direction; misses have triangle -1, distance 0.

    triangle: (N,) int64.  part: (N,) int64, -1 for misses.
    distance: (N,) float64.  point, normal: (N, 3) float64 in the room's frame, the normal toward the ray's origin.
    """

    triangle: np.ndarray
    part: np.ndarray
    distance: np.ndarray
    point: np.ndarray
    normal: np.ndarray


def require_embree() -> tuple[Any, Any]:
    """embreex's scene and mesh classes; raises BackendMissing where it is not installed."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as missing:
        raise BackendMissing("rooms need embreex: pip install 'emadeploy[export]', or [train]") from missing
    return EmbreeScene, TriangleMesh


def _embree(triangles: np.ndarray) -> Any:
    scene_class, mesh_class = require_embree()
    scene = scene_class()
    mesh_class(scene, triangles.astype(np.float32))
    return scene


class RayCaster:
    """Casts rays into a scene.

    Raises BackendMissing where embreex is not installed.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._all = _embree(scene.triangles)
        self._solid = _embree(scene.triangles[scene.shadows])

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> Hits:
        """The first triangle along each ray; `origin` (3,) is shared, `directions` (N, 3) of any length.

        embree works in float32 and only decides which triangle is met; distance, point and normal come from that
        triangle's plane in float64, so they are exact to rounding.
        """
        scene = self.scene
        origins = np.broadcast_to(origin.astype(np.float32), directions.shape)
        triangle = self._all.run(np.ascontiguousarray(origins), directions.astype(np.float32)).astype(np.int64)
        met = triangle >= 0
        normal = scene.normals[triangle]
        slope = np.einsum("nc,nc->n", normal, directions)
        # A ray within its own plane has no exact distance: such pixels (next to none) are given up as misses.
        met &= np.abs(slope) > 1e-9
        height = np.einsum("nc,nc->n", normal, scene.triangles[triangle, 0] - origin)
        distance = np.where(met, height / np.where(met, slope, 1.0), 0.0)
        met &= distance > 0
        distance = np.where(met, distance, 0.0)
        normal *= np.where(met, -np.sign(slope), 0.0)[:, None]
        return Hits(
            triangle=np.where(met, triangle, -1),
            part=np.where(met, scene.part[triangle], -1),
            distance=distance,
            point=origin + directions * distance[:, None],
            normal=normal,
        )

    def free(self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
        """(N,) bool: whether nothing solid lies within `reach` lengths of the direction; panes let light through."""
        limit = np.ascontiguousarray(np.broadcast_to(np.float32(reach), len(origins)), dtype=np.float32)
        found = self._solid.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(directions, dtype=np.float32),
            limit,
            query="OCCLUDED",
        )
        return found != 0
