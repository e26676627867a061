"""The image sensor: exposure, white balance, tone curve, noise."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sensor:
    """key: brightness the middle tones are exposed to. balance: share of a colour cast that is taken out, 0 to 1.
    vignette: loss of light in the corners. noise: standard deviation in display units. seed: of the noise."""

    key: float
    balance: float
    vignette: float
    noise: float
    seed: int


def draw_sensor(rng: np.random.Generator) -> Sensor:
    return Sensor(
        key=rng.uniform(0.22, 0.5),
        balance=rng.uniform(0.3, 0.9),
        vignette=rng.uniform(0.0, 0.25),
        noise=rng.uniform(0.002, 0.014),
        seed=int(rng.integers(2**32)),
    )


def expose(sensor: Sensor, radiance: np.ndarray) -> np.ndarray:
    """Linear radiance (H, W, 3) to an image (H, W, 3) uint8 RGB."""
    height, width = radiance.shape[:2]
    capped = np.minimum(radiance, np.percentile(radiance, 95))
    cast = capped.mean(axis=(0, 1)) + 1e-6
    gain = (cast.mean() / cast) ** sensor.balance
    level = np.exp(np.log(radiance.mean(axis=2) + 1e-4).mean())
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    falloff = 1 - sensor.vignette * (x * x + y * y) / 2
    light = radiance * (gain * sensor.key / level).astype(np.float32) * falloff[..., None].astype(np.float32)
    # A shoulder for the highlights, then a display gamma of 2: a square root is far faster than a power of 1 / 2.2.
    display = np.sqrt(1 - np.exp(-light))
    noise = np.random.Generator(np.random.PCG64(sensor.seed)).standard_normal(display.shape, dtype=np.float32)
    # Photon noise grows with the light, read noise does not; after the tone curve both show most in the dark.
    display += noise * np.float32(sensor.noise) * (1.5 - display)
    return (np.clip(display, 0, 1) * 255 + 0.5).astype(np.uint8)
