"""The published tables, against what their sources say of single labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import DataError
from emadeploy.contract.tasks import CLASS_SETS, NYUV2_13, NYUV2_40
from emadeploy.data.label_tables import UNKNOWN_ID, cityscapes_table, nyuv2_table

# Labels of nyu_depth_v2_labeled.mat by their names there.
IN_40 = {
    21: "wall", 11: "floor", 3: "cabinet", 157: "bed", 5: "chair", 83: "sofa", 19: "table", 28: "door", 59: "window",
    88: "bookshelf", 64: "picture", 36: "desk", 80: "blinds", 119: "pillow", 172: "television", 331: "person",
    17: "refrigerator", 124: "toilet", 238: "other structure", 702: "other structure", 850: "other structure",
    772: "other furniture", 356: "other furniture", 894: "other prop", 1: "other prop", 700: "other structure",
}  # fmt: skip
IN_13 = {
    "wall": "wall", "door": "wall", "floor mat": "floor", "bookshelf": "furniture", "counter": "furniture",
    "blinds": "window", "curtain": "window", "desk": "table", "pillow": "objects", "television": "tv",
    "refrigerator": "furniture", "person": "objects", "other structure": "objects", "other furniture": "furniture",
    "other prop": "objects", "books": "books", "picture": "picture", "sofa": "sofa", "bed": "bed", "chair": "chair",
}  # fmt: skip


@pytest.mark.parametrize(("label", "name"), IN_40.items())
def test_labels_of_nyuv2_are_where_the_paper_has_them(label, name):
    assert NYUV2_40[nyuv2_table(40)[label]] == name


@pytest.mark.parametrize(("of_40", "of_13"), IN_13.items())
def test_classes_of_40_are_where_the_paper_has_them_in_13(of_40, of_13):
    inside = nyuv2_table(40) == NYUV2_40.index(of_40)
    assert inside.any()
    assert {NYUV2_13[index] for index in nyuv2_table(13)[inside]} == {of_13}


@pytest.mark.parametrize("classes", [13, 40])
def test_every_class_of_nyuv2_has_a_label_and_nothing_but_zero_is_ignored(classes):
    table = nyuv2_table(classes)
    assert table.shape == (895,)
    assert set(table[1:].tolist()) == set(range(classes))
    assert np.flatnonzero(table == 255).tolist() == [0]
    assert len(CLASS_SETS[f"nyuv2-{classes}"][0]) == classes


def test_how_many_labels_each_kind_of_the_rest_has():
    counts = np.bincount(nyuv2_table(40)[1:], minlength=40)
    assert (counts[:37] == 1).all()
    assert counts[37:].tolist() == [68, 82, 707]
    assert counts.sum() == 894


@given(st.lists(st.integers(1, 40), min_size=894, max_size=894))
def test_a_mapping_of_ones_own_takes_its_place(mapping):
    table = nyuv2_table(40, np.array([mapping], np.uint8))
    assert table[1:].tolist() == [each - 1 for each in mapping]
    coarse = nyuv2_table(13, np.array(mapping))
    # What is one class of 40 is one class of 13.
    assert len({*zip(mapping, coarse[1:].tolist(), strict=True)}) == len(set(mapping))


@pytest.mark.parametrize("mapping", [np.ones(893), np.zeros(894), np.full(894, 41)])
def test_what_is_no_mapping_is_refused(mapping):
    with pytest.raises(DataError, match="expected 894 from 1 to 40"):
        nyuv2_table(40, mapping)


@pytest.mark.parametrize(
    ("label", "in_19", "in_7"),
    [
        (0, None, None),
        (3, None, None),
        (6, None, None),
        (7, "road", "flat"),
        (9, None, "flat"),
        (12, "wall", "construction"),
        (16, None, "construction"),
        (18, None, "object"),
        (20, "traffic sign", "object"),
        (22, "terrain", "nature"),
        (23, "sky", "sky"),
        (25, "rider", "human"),
        (26, "car", "vehicle"),
        (29, None, "vehicle"),
        (33, "bicycle", "vehicle"),
        (255, None, None),
    ],
)
def test_ids_of_cityscapes_are_where_its_scripts_have_them(label, in_19, in_7):
    for classes, name in ((19, in_19), (7, in_7)):
        index = cityscapes_table(classes)[label]
        assert (None if index == 255 else CLASS_SETS[f"cityscapes-{classes}"][0][index]) == name


@pytest.mark.parametrize("classes", [19, 7])
def test_ids_that_cityscapes_does_not_have_are_known_as_such(classes):
    table = cityscapes_table(classes)
    assert (table[34:255] == UNKNOWN_ID).all()
    assert set(table.tolist()) == {*range(classes), UNKNOWN_ID, 255}
