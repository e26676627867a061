"""The six task kinds of EMA-Net, and the class sets and palettes that model.yml files name.

One row of :data:`KINDS` per kind says everything that is the same for every model: how many maps the network
answers, what becomes of them, in which type, and how a map without a value is marked.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class TaskKind:
    """What holds for every task of one kind.

    ``channels`` is the number of raw maps, or ``None`` where it is the number of classes. ``invalid`` is the value
    that marks a pixel without an answer in decoded maps, ``None`` where every pixel has one. ``directions``,
    ``units`` and ``frames`` list what a TaskSpec may say, the first being the default; empty: it must say nothing.
    """

    name: str
    channels: int | None
    activation: str  # "argmax" | "none" | "l2" | "sigmoid" | "softmax"
    dtype: str
    invalid: float | None
    units: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()


# Optical frame, REP-103: x right, y down, z forward.
KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        TaskKind("semseg", None, "argmax", "uint8", 255),
        TaskKind(
            "depth",
            1,
            "none",
            "float32",
            0.0,
            units=("metre", "inverse_depth"),
            directions=("farther_is_larger", "nearer_is_larger"),
        ),
        TaskKind(
            "normals",
            3,
            "l2",
            "float32",
            0.0,
            units=("unit_vector",),
            directions=("toward_camera", "away_from_camera"),
            frames=("camera_optical", "dataset"),
        ),
        TaskKind("edge", 1, "sigmoid", "float32", None, units=("probability",)),
        TaskKind("saliency", 2, "softmax", "float32", None, units=("probability",)),
        TaskKind("human_parts", None, "argmax", "uint8", 255),
    )
}


def spread_palette(count: int) -> tuple[Rgb, ...]:
    """Return ``count`` colours (0 to 255) that differ well: golden-ratio hues, alternating brightness."""
    colours = []
    for index in range(count):
        hue = (0.08 + index * 0.61803398875) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.3 * (index % 3 == 1))
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


NYUV2_13 = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)

#: The 40 classes of Gupta, Arbelaez and Malik (CVPR 2013), in the order of their labels 1 to 40.
NYUV2_40 = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "night stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "other structure",
    "other furniture",
    "other prop",
)

# The official train ids of Cityscapes, in order, with the benchmark's colours.
_CITYSCAPES_19: dict[str, Rgb] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

_CITYSCAPES_7: dict[str, Rgb] = {
    "flat": (128, 64, 128),
    "construction": (70, 70, 70),
    "object": (153, 153, 153),
    "nature": (107, 142, 35),
    "sky": (70, 130, 180),
    "human": (220, 20, 60),
    "vehicle": (0, 0, 142),
}

_PASCAL_21 = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_PASCAL_PARTS_7 = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

#: Class sets a model.yml may name in place of a list: name -> (class names, palette).
CLASS_SETS: dict[str, tuple[tuple[str, ...], tuple[Rgb, ...]]] = {
    "nyuv2-13": (NYUV2_13, spread_palette(13)),
    "nyuv2-40": (NYUV2_40, spread_palette(40)),
    "cityscapes-19": (tuple(_CITYSCAPES_19), tuple(_CITYSCAPES_19.values())),
    "cityscapes-7": (tuple(_CITYSCAPES_7), tuple(_CITYSCAPES_7.values())),
    "pascal-21": (_PASCAL_21, spread_palette(21)),
    "pascal-parts-7": (_PASCAL_PARTS_7, spread_palette(7)),
}
