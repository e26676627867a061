"""From hits and light to linear colour."""

import numpy as np

from emadeploy.data.rooms import textures
from emadeploy.data.rooms.lighting import Lights, irradiance
from emadeploy.data.rooms.raycast import Hits
from emadeploy.data.rooms.scene import Scene

# Patterns that show one picture: their texture coordinates must not be shifted.
_FRAMED = frozenset({"landscape", "blocks", "blobs", "print", "screen"})


def _coordinates(scene: Scene, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates u, v (N,) float32 in metres: the piece's own axes, projected along the steepest one."""
    cos, sin = scene.rotation[hits.part].T
    x, y, z = (hits.point - scene.origin[hits.part]).T
    x, y = cos * x + sin * y, cos * y - sin * x
    nx, ny, nz = hits.normal.T
    nx, ny, nz = np.abs(cos * nx + sin * ny), np.abs(cos * ny - sin * nx), np.abs(nz)
    lying = (nz >= nx) & (nz >= ny)
    sideways = ~lying & (nx > ny)
    return np.where(sideways, y, x).astype(np.float32), np.where(lying, y, z).astype(np.float32)


def albedo(scene: Scene, hits: Hits, rays: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """(N, 3) float32 linear reflectance; `rays` (N, 3) unit in the room's frame, `footprint` (N,) metres per pixel."""
    u, v = _coordinates(scene, hits)
    item = scene.item[hits.triangle]
    result = np.zeros((len(u), 3), dtype=np.float32)
    order = np.argsort(hits.part, kind="stable")
    parts, starts = np.unique(hits.part[order], return_index=True)
    for part, chosen in zip(parts, np.split(order, starts)[1:], strict=True):
        if part < 0:
            continue
        material = scene.materials[part]
        if material.pattern == "outdoors":
            x, y, z = rays[chosen].T
            points = textures.Points(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), item[chosen], footprint[chosen])
        else:
            du, dv = (0.0, 0.0) if material.pattern in _FRAMED else (material.seed % 89 / 7, material.seed % 97 / 7)
            pu, pv = u[chosen] + np.float32(du), v[chosen] + np.float32(dv)
            if material.turned:
                pu, pv = pv, pu
            points = textures.Points(pu, pv, item[chosen], footprint[chosen])
        result[chosen] = textures.PATTERNS[material.pattern](material, points)
    return result


def shade(
    scene: Scene,
    lights: Lights,
    hits: Hits,
    rays: np.ndarray,
    footprint: np.ndarray,
    visible: np.ndarray,
    openness: np.ndarray,
) -> np.ndarray:
    """(N, 3) float32 linear radiance. `visible` (N, L) per source and `openness` (N,) are shares in [0, 1]."""
    base = albedo(scene, hits, rays, footprint)
    normals, points, view = (a.astype(np.float32) for a in (hits.normal, hits.point, rays))
    gloss = np.array([m.gloss for m in scene.materials], dtype=np.float32)[hits.part]
    glow = np.array([m.glow for m in scene.materials], dtype=np.float32)[hits.part]
    powers = np.array([light.power for light in lights.sources], dtype=np.float32).reshape(-1, 3)
    received = np.zeros((len(base), len(powers)), dtype=np.float32)
    shine = np.zeros_like(received)
    # Mirror direction of the eye ray, for the highlights of glossy surfaces.
    glossy = np.flatnonzero(gloss > 0.02)
    facing = np.einsum("nc,nc->n", view[glossy], normals[glossy])
    mirrored = view[glossy] - 2 * facing[:, None] * normals[glossy]
    for k, light in enumerate(lights.sources):
        factor, way = irradiance(light, points, normals)
        received[:, k] = factor * visible[:, k]
        near = np.einsum("nc,nc->n", way[glossy], mirrored)
        # Further off than this even the broadest highlight is black.
        lit = np.flatnonzero(near > 0.6)
        at = glossy[lit]
        sharp = (5 + 60 * gloss[at]) if light.kind == "window" else (15 + 120 * gloss[at])
        shine[at, k] = near[lit] ** sharp * visible[at, k] * gloss[at] * 0.25
    up = 0.5 + 0.5 * normals[:, 2:]
    ambient = lights.ambient_up.astype(np.float32) * (1 - up) + lights.ambient_down.astype(np.float32) * up
    light_in = received @ powers + ambient * (openness**1.3)[:, None]
    # What glows looks the same from all sides, and is lit a little as well.
    return base * (light_in * np.where(glow > 0, 0.3, 1.0)[:, None].astype(np.float32) + glow[:, None]) + shine @ powers
