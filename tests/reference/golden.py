"""Weights and an image that every machine can make alike: from names and shapes alone.

Each entry of a state dict has its own NumPy generator, seeded with the CRC-32 of its name. Two implementations that
agree on names and shapes therefore hold the same weights, in whatever order they create their layers.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent
NETWORKS = ("emanet", "m_emanet", "stl", "hps")
SIZE = (288, 384)


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the published state dict of ``network``, NYUv2, three tasks."""
    listed = json.loads((FOLDER / f"{network}_nyuv2_state_dict.json").read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, shape in listed.items()}


def answers(network: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return what the published network answers to `image` with the weights of `tensor`; maps are subsampled.

    Finals every 4th row and column, initial ones every 8th, ``ctal_*`` every 8th channel and 4th row and column.
    """
    with np.load(FOLDER / f"{network}_nyuv2.npz") as stored:
        return dict(stored)


def tensor(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Return the value of the entry ``name``: float32, except BatchNorm's counter."""
    rng = _generator(name)
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros((), np.int64)
    if leaf == "running_var":
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "running_mean":
        value = 0.1 * rng.standard_normal(shape)
    elif leaf == "bias":
        value = 0.05 * rng.standard_normal(shape)
    elif len(shape) == 1:  # BatchNorm's scale
        value = rng.uniform(0.4, 0.6, shape)
    elif _is_fusion(shape):  # sums over all pixels stay of the order of one
        value = 10.0 / shape[0] * rng.standard_normal(shape)
    else:
        value = np.sqrt(1.0 / np.prod(shape[1:])) * rng.standard_normal(shape)
    return value.astype(np.float32)


def image(height: int, width: int) -> npt.NDArray[np.float32]:
    """Return an image (1, 3, height, width): six waves per channel and a little noise. Not confined to [0, 1]."""
    rng = _generator(f"image-{height}x{width}")
    row, column = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = np.zeros((3, height, width))
    for plane in planes:
        for _ in range(6):
            down, across = rng.uniform(0.5, 6, 2)
            phase = rng.uniform(0, 2 * np.pi)
            plane += np.sin(2 * np.pi * (down * row / height + across * column / width) + phase)
    planes = planes / np.sqrt(6) + 0.05 * rng.standard_normal(planes.shape)
    return planes[None].astype(np.float32)


def _is_fusion(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] >= 1024 and shape[1] < 8


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))
