"""Light: lamps, windows and the sun, and how much of each reaches a point."""

from dataclasses import dataclass

import numpy as np

from emadeploy.data.rooms.layout import Room
from emadeploy.data.rooms.materials import colour
from emadeploy.data.rooms.raycast import RayCaster

MAX_LAMPS = 4
# Neighbouring pixels look toward different points of a window and in different directions, in this many ways; the
# renderer then averages neighbours on one surface, which has the effect of that many more rays.
PHASES = 4
_LIFT = 2e-3  # metres by which shadow rays start above their surface


@dataclass(frozen=True)
class Light:
    """One source. A lamp has a position; a window a position and the direction it faces; the sun only a direction.

    power:   (3,) linear RGB. Lamp: irradiance at one metre. Window: radiance times area. Sun: irradiance.
    samples: (S, 3) points that shadow rays go to, or for the sun (1, 3) the direction toward it. Where there are
             several, every one of the `PHASES` takes its own equal share of them.
    facing:  (3,) unit, or None.
    leak:    share of the light that comes through all the same, for lamps behind a shade.
    """

    kind: str
    power: np.ndarray
    samples: np.ndarray
    facing: np.ndarray | None = None
    leak: float = 0.0


@dataclass(frozen=True)
class Lights:
    """All sources of a room and the light that comes from everywhere, (3,) linear RGB from below and from above."""

    sources: tuple[Light, ...]
    ambient_down: np.ndarray
    ambient_up: np.ndarray


def _tint(rng: np.random.Generator, warmth: float) -> np.ndarray:
    """A whitish light colour; `warmth` 1 is an old bulb, 0 daylight, below 0 a blue sky."""
    warm = np.clip(warmth + rng.normal(0, 0.1), -0.5, 1.2)
    return np.array([1.0 + 0.12 * warm, 0.95 - 0.05 * warm, 1.0 - 0.5 * warm])


def draw_lights(rng: np.random.Generator, room: Room) -> Lights:
    """The lamps that are on, at most `MAX_LAMPS`; one source per window; often the sun through one of them."""
    shell = room.shell
    lamps = [p for p in room.placed if p.piece.light is not None]
    lamps.sort(key=lambda p: p.piece.name != "ceiling lamp")
    bulb = _tint(rng, rng.uniform(0, 1))
    sources = []
    for placed in lamps[:MAX_LAMPS]:
        above = placed.piece.name == "ceiling lamp"
        power = bulb * (rng.uniform(2.0, 5.0) if above else rng.uniform(0.3, 0.9))
        at = placed.to_room(np.asarray(placed.piece.light))
        sources.append(Light("lamp", power, at[None], leak=0.0 if above else 0.25))
    sky = _tint(rng, rng.uniform(-0.4, 0.2)) * shell.daylight
    facings = []
    for wall, openings in enumerate(shell.openings):
        yaw = shell.wall_yaw(wall)
        inward = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        for o in openings:
            # Each phase has two points of its own, far apart: together a 4 x 2 grid over the pane, slightly skewed.
            spots = [
                (o.u0 + o.width * (0.125 + (k % 4 + 2 * half) % 4 / 4), o.z0 + o.height * (0.2 + 0.5 * half + 0.03 * k))
                for k in range(PHASES)
                for half in (0, 1)
            ]
            samples = np.array([shell.on_wall(wall, u, 0.01, z) for u, z in spots])
            sources.append(Light("window", sky * o.width * o.height, samples, inward))
            facings.append(yaw)
    if facings and shell.daylight > 1.0 and rng.random() < 0.5:
        azimuth = facings[int(rng.integers(len(facings)))] + np.pi / 2 + rng.uniform(-0.9, 0.9)
        height = rng.uniform(0.25, 0.9)
        toward = -np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), -np.sin(height)])
        sources.append(Light("sun", _tint(rng, 0.3) * rng.uniform(1.5, 3.5), toward[None]))
    surface = 2 * (shell.width * shell.depth + shell.height * (shell.width + shell.depth))
    inside = sum((s.power * (12.0 if s.kind == "lamp" else 3.0) for s in sources if s.kind != "sun"), np.zeros(3))
    bounce = np.asarray(colour(rng, "pale")) * 0.5 + 0.5
    ambient = inside / surface * rng.uniform(0.5, 1.0) * bounce + 0.02
    return Lights(tuple(sources), ambient * rng.uniform(0.8, 1.1), ambient * rng.uniform(0.6, 0.9))


def visibility(
    caster: RayCaster, lights: Lights, points: np.ndarray, normals: np.ndarray, phase: np.ndarray
) -> np.ndarray:
    """(N, L) float32 in [0, 1]: the share of each source that N surface points of given `phase` (N,) int see."""
    starts = points + normals * _LIFT
    result = np.zeros((len(points), len(lights.sources)), dtype=np.float32)
    for k, light in enumerate(lights.sources):
        several = len(light.samples) > 1
        rounds = len(light.samples) // PHASES if several else 1
        for turn in range(rounds):
            sample = light.samples[phase * rounds + turn] if several else light.samples[0]
            way = np.broadcast_to(sample, starts.shape) if light.kind == "sun" else sample - starts
            # Rays into the surface need no casting.
            ahead = np.flatnonzero(np.einsum("nc,nc->n", way, normals) > 0)
            reach = 50.0 if light.kind == "sun" else 1.0
            result[ahead, k] += caster.free(starts[ahead], way[ahead], reach)
        result[:, k] = light.leak + (1 - light.leak) * result[:, k] / rounds
    return result


def _dome(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine-weighted directions around +z (count, 3), and how far each looks, metres (count,)."""
    k = np.arange(count)
    share = (k + 0.5) / count
    angle = k * 2.399963
    radius = np.sqrt(share)
    directions = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - share)], axis=1)
    # Near and far reaches alternate, so that corners darken softly.
    return directions, 0.12 + 1.1 * ((k * 5) % count) / count


def openness(
    caster: RayCaster, points: np.ndarray, normals: np.ndarray, phase: np.ndarray, count: int = 9
) -> np.ndarray:
    """(N,) float32 in [0, 1]: how much of their surroundings N surface points of given `phase` (N,) int see."""
    spin = phase * (2 * np.pi / PHASES / 3)
    helper = np.where(np.abs(normals[:, 2:]) < 0.9, np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    side = np.cross(normals, helper)
    # Rays that met nothing come with a normal of zero.
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    other = np.cross(normals, side)
    cos, sin = np.cos(spin)[:, None], np.sin(spin)[:, None]
    side, other = cos * side + sin * other, cos * other - sin * side
    starts = (points + normals * _LIFT).astype(np.float32)
    side, other, up = (a.astype(np.float32) for a in (side, other, normals))
    seen = np.zeros(len(points), dtype=np.float32)
    for (x, y, z), reach in zip(*_dome(count), strict=True):
        seen += caster.free(starts, np.float32(x) * side + np.float32(y) * other + np.float32(z) * up, reach)
    return seen / count


def irradiance(light: Light, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What arrives of a source where nothing is in its way: (N,) float32 factors to its power, and (N, 3) the unit
    directions toward it."""
    if light.kind == "sun":
        way = np.broadcast_to(light.samples[0].astype(np.float32), points.shape)
        return np.maximum(np.einsum("nc,nc->n", way, normals), 0), way
    way = light.samples.mean(axis=0).astype(np.float32) - points
    square = np.maximum(np.einsum("nc,nc->n", way, way), 1e-4)
    way = way / np.sqrt(square)[:, None]
    facing = np.einsum("nc,nc->n", way, normals)
    if light.kind == "lamp":
        return np.maximum(facing, 0) / (square + 0.05), way
    # A window is large: points beside it still see it at a slant, and its light stays finite close by.
    assert light.facing is not None
    emitted = np.maximum(-way @ light.facing.astype(np.float32), 0)
    return np.maximum(facing * 0.85 + 0.15, 0) * emitted / (square + 0.6), way
