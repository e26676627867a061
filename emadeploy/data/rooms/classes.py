"""The 13 NYUv2 classes, in the index order of the preprocessed release.

What falls where, after the 40-class mapping of NYUv2: curtains are `window`, doors and columns are `wall`, rugs are
`floor`, cupboards, dressers and shelves are `furniture`, desks are `table`, lamps and plants are `objects`. Pillows and
cushions belong to the bed or sofa they lie on.
"""

from emadeploy.contract.tasks import NYUV2_13

CLASS_NAMES = NYUV2_13

BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS, PICTURE, SOFA, TABLE, TV, WALL, WINDOW = range(13)

UNLABELLED = -1
