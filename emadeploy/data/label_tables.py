"""The published tables that turn the labels of raw data sets into those that networks are trained on.

**NYUv2.** 894 labels in 40 classes: S. Gupta, P. Arbelaez and J. Malik, Perceptual Organization and Recognition of
Indoor Scenes from RGB-D Images, CVPR 2013, as their `classMapping40.mat` has it. The file itself could not be had here:
the table was taken from two programs that carry it, in agreement on all 894, and its classes looked through with the
labels' names. A `classMapping40.mat` beside the raw data takes its place. 40 classes in 13: C. Couprie, C. Farabet,
L. Najman and Y. LeCun, Indoor Semantic Segmentation using depth information, ICLR 2013, as in `class13Mapping.mat` of
SceneNet (A. Handa et al., ICRA 2016) and in github.com/howard-mahe/nyudv2_class_mapping.

**Cityscapes.** Ids of `*_gtFine_labelIds.png` in train ids and in categories: `helpers/labels.py` of
github.com/mcordts/cityscapesScripts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError
from emadeploy.data.sample import IGNORE

Array = npt.NDArray[Any]

NYUV2_LABELS = 894
#: The one label of each of the classes 1 to 37.
_ALONE = (
    21, 11, 3, 157, 5, 83, 19, 28, 59, 88, 64, 7, 80, 36, 42, 89, 169, 119, 122, 143, 141, 4, 85, 17, 172, 15, 135,
    123, 26, 45, 331, 158, 124, 24, 144, 136, 55,
)  # fmt: skip
#: The labels of the classes 'other structure' (38) and 'other furniture' (39). All the others are 'other prop' (40).
_OTHER_STRUCTURE = (
    8, 25, 33, 38, 51, 53, 57, 58, 62, 65, 79, 94, 104, 112, 134, 153, 215, 216, 223, 225, 238, 241, 242, 256, 295,
    301, 339, 342, 354, 363, 372, 380, 392, 408, 412, 453, 456, 463, 477, 497, 541, 550, 553, 567, 573, 582, 591,
    609, 612, 615, 642, 645, 657, 658, 659, 663, 667, 668, 686, 700, 702, 777, 778, 782, 850, 861, 868, 874,
)  # fmt: skip
_OTHER_FURNITURE = (
    12, 43, 48, 50, 87, 106, 111, 161, 163, 174, 183, 204, 214, 219, 221, 224, 236, 262, 278, 291, 298, 313, 343,
    344, 356, 359, 373, 393, 401, 414, 418, 419, 430, 443, 444, 447, 448, 457, 458, 460, 462, 475, 479, 485, 486,
    493, 494, 498, 499, 509, 510, 515, 521, 524, 540, 549, 551, 554, 556, 558, 576, 580, 608, 625, 703, 734, 770,
    772, 797, 800, 803, 804, 813, 814, 815, 820, 829, 835, 858, 863, 882, 892,
)  # fmt: skip
#: Class of the 13, from 1 as in NYUV2_13, of each of the 40.
_13_OF_40 = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
    7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
)  # fmt: skip

#: Id of each of the 19 classes of Cityscapes, in the order of their train ids.
_CITYSCAPES_19 = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
#: First and last id of each of the seven categories: flat, construction, object, nature, sky, human, vehicle.
_CITYSCAPES_7 = ((7, 10), (11, 16), (17, 20), (21, 22), (23, 23), (24, 25), (26, 33))
#: Ids go from 0 to 33. The -1 of licence plates is 255 in eight bits.
_CITYSCAPES_IDS = 34
#: What :func:`cityscapes_table` gives for an id that there is none of.
UNKNOWN_ID = 254


def nyuv2_table(classes: int, mapping_40: Array | None = None) -> npt.NDArray[np.uint8]:
    """Return the class index of each of NYUv2's labels, uint8 (895,): 0 is unlabelled and becomes 255.

    ``classes`` is 13 or 40; ``mapping_40`` (894,) takes the place of the table above, classes from 1 to 40. Raises
    DataError where it is no such mapping.
    """
    table = _published_40() if mapping_40 is None else np.asarray(mapping_40, np.int64).ravel()
    if table.shape != (NYUV2_LABELS,) or table.min() < 1 or table.max() > 40:
        raise DataError(f"has {table.size} entries from {table.min()} to {table.max()}; expected 894 from 1 to 40")
    if classes == 13:
        table = np.array(_13_OF_40)[table - 1]
    return np.concatenate([[IGNORE], table - 1]).astype(np.uint8)


def _published_40() -> npt.NDArray[np.int64]:
    table = np.full(NYUV2_LABELS, 40, np.int64)
    table[np.array(_ALONE) - 1] = np.arange(1, 38)
    table[np.array(_OTHER_STRUCTURE) - 1] = 38
    table[np.array(_OTHER_FURNITURE) - 1] = 39
    return table


def cityscapes_table(classes: int) -> npt.NDArray[np.uint8]:
    """Return the class index of each id of Cityscapes, uint8 (256,): 255 where it is not evaluated.

    ``classes`` is 19 (train ids) or 7 (categories, with the labels that are not evaluated by themselves). Ids that
    do not exist become 254.
    """
    table = np.full(256, UNKNOWN_ID, np.uint8)
    table[:_CITYSCAPES_IDS] = IGNORE
    table[IGNORE] = IGNORE
    if classes == 19:
        table[list(_CITYSCAPES_19)] = np.arange(19)
    else:
        for category, (first, last) in enumerate(_CITYSCAPES_7):
            table[first : last + 1] = category
    return table
