"""Numbers of different meaning are told apart, in the words that a message needs."""

from dataclasses import replace

import pytest

from emadeploy.contract.errors import DataError
from emadeploy.contract.meaning import check_truths, difference
from emadeploy.contract.spec import TaskSpec

SEMSEG, DEPTH, NORMALS = TaskSpec("semseg", class_names=("floor", "wall")), TaskSpec("depth"), TaskSpec("normals")


@pytest.mark.parametrize(
    ("mine", "theirs", "wanted"),
    [
        (NORMALS, replace(NORMALS, frame="dataset"), ("the frame", "camera_optical", "dataset")),
        (
            NORMALS,
            replace(NORMALS, direction="away_from_camera"),
            ("the direction", "toward_camera", "away_from_camera"),
        ),
        (
            DEPTH,
            TaskSpec("depth", unit="inverse_depth", direction="nearer_is_larger"),
            ("the unit", "metre", "inverse_depth"),
        ),
        (SEMSEG, TaskSpec("semseg", channels=13), ("the number of classes", "2", "13")),
        (SEMSEG, TaskSpec("semseg", class_names=("floor", "sky")), ("class 1", "wall", "sky")),
        (SEMSEG, TaskSpec("semseg", channels=2), None),
        (SEMSEG, replace(SEMSEG, palette=((0, 0, 0), (1, 1, 1)), weight=3.0), None),
    ],
)
def test_what_differs_first(mine, theirs, wanted):
    assert difference(mine, theirs) == wanted


def test_truths_of_tasks_that_the_model_lacks_are_nobodys_concern():
    check_truths([replace(NORMALS, frame="dataset"), DEPTH], [SEMSEG, DEPTH], "the data")
    with pytest.raises(DataError, match=r"^the data and the model differ in normals: the frame is dataset in the data"):
        check_truths([replace(NORMALS, frame="dataset"), DEPTH], [NORMALS, DEPTH], "the data")
