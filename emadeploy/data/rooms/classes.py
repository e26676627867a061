"""The 13 NYUv2 classes, in the index order of the preprocessed release.

What falls where, after the 40-class mapping of NYUv2: curtains are `window`, doors and columns are `wall`, rugs are
`floor`, cupboards, dressers and shelves are `furniture`, desks are `table`, lamps and plants are `objects`. Pillows and
cushions belong to the bed or sofa they lie on.
"""

CLASS_NAMES: tuple[str, ...] = (
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

BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS, PICTURE, SOFA, TABLE, TV, WALL, WINDOW = range(13)

UNLABELLED = -1
