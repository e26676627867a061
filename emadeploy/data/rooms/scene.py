"""A room as flat arrays for ray casting."""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms.layout import Room
from emadeploy.data.rooms.materials import Material
from emadeploy.data.rooms.piece import Part


@dataclass(frozen=True)
class Scene:
    """T triangles of P parts, in the room's frame (metres, z up).

    triangles: (T, 3, 3) float64.
    normals:   (T, 3) float64 unit, pointing to either side.
    part:      (T,) index of the part each triangle belongs to.
    item:      (T,) int, tells like things in one part apart.
    shadows:   (T,) bool, whether light is stopped.
    labels, instances: (P,) class index and thing of each part.
    rotation, origin:  (P, 2) cos and sin, (P, 3): where each part's texture is anchored in the room.
    materials: one per part.
    """

    triangles: np.ndarray
    normals: np.ndarray
    part: np.ndarray
    item: np.ndarray
    shadows: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    materials: tuple[Material, ...]


def _items(part: Part) -> np.ndarray:
    return np.zeros(len(part.triangles), dtype=np.int64) if part.items is None else part.items


def assemble(room: Room) -> Scene:
    """Moves every part into the room and flattens them all."""
    pairs = [(placed, part) for placed in room.placed for part in placed.piece.parts]
    triangles = np.concatenate([placed.to_room(part.triangles) for placed, part in pairs])
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    counts = [len(part.triangles) for _, part in pairs]
    return Scene(
        triangles=triangles,
        normals=normals / np.maximum(length, 1e-12),
        part=np.repeat(np.arange(len(pairs)), counts),
        item=np.concatenate([_items(part) for _, part in pairs]),
        shadows=np.repeat(np.array([part.shadows for _, part in pairs]), counts),
        labels=np.array([part.label for _, part in pairs]),
        instances=np.array([placed.instance for placed, _ in pairs]),
        rotation=np.array([[np.cos(placed.yaw), np.sin(placed.yaw)] for placed, _ in pairs]),
        origin=np.array([placed.to_room(np.asarray(part.origin)) for placed, part in pairs]),
        materials=tuple(part.material for _, part in pairs),
    )
