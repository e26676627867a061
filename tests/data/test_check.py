"""A first look: numbers counted by hand, corrupt files named, the sheet."""

import json

import numpy as np
import pytest

from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.check import check
from emadeploy.data.sample import Sample
from emadeploy.data.sheet import WIDTH, Sheet

SPECS = (
    TaskSpec("semseg", class_names=("floor", "wall", "other")),
    TaskSpec("depth"),
    TaskSpec("normals"),
    TaskSpec("edge"),
)


def image(value: int, shape=(2, 4)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def normals(z: float) -> np.ndarray:
    stored = np.zeros((2, 4, 3), np.float32)
    stored[0, :, 2] = z
    return stored


class Made:
    """Samples by hand; the one at 2 cannot be read."""

    description = "made val"
    specs = SPECS
    tasks = tuple(spec.name for spec in SPECS)

    def __init__(self, frames: list[Sample | None]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index]
        if frame is None:
            raise DataError(f"/data/{index}.npy cannot be read")
        return frame


@pytest.fixture
def made() -> Made:
    labels = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    depth = np.array([[0, 0, 1, 2], [3, 4, 5, 9]], np.float32)
    edge = np.array([[0, 1, 0, 255], [0, 0, 0, 0]], np.uint8)
    return Made(
        [
            Sample("a", image(0), {"semseg": labels, "depth": depth, "normals": normals(-1), "edge": edge}),
            Sample("b", image(255), {"semseg": labels, "normals": normals(-0.5)}),
            None,
            Sample("c", image(255, (4, 8)), {}),
        ]
    )


def test_everything_is_counted(made):
    reports, seen = [], []
    record = check(made, lambda done, total: reports.append((done, total)), lambda sample: seen.append(sample.name))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen == ["a", "b", "c"]
    assert json.loads(json.dumps(record)) == record
    assert record["data"] == "made val"
    assert (record["frames"], record["readable"]) == (4, 3)
    assert record["sizes"] == {"2x4": 2, "4x8": 1}
    assert record["corrupt"] == ["frame 2: /data/2.npy cannot be read"]
    # 8 black pixels, 40 white.
    assert record["image"]["mean"] == pytest.approx([40 / 48] * 3)
    assert record["image"]["std"] == pytest.approx([np.sqrt(40 / 48 * 8 / 48)] * 3)
    tasks = record["tasks"]
    assert list(tasks) == ["semseg", "depth", "normals", "edge"]
    assert [tasks[name]["frames"] for name in tasks] == [2, 1, 2, 1]
    assert [tasks[name]["invalid"] for name in tasks] == pytest.approx([2 / 8, 2 / 8, 4 / 8, 1 / 8])
    assert tasks["semseg"]["classes"] == {"floor": 0.5, "wall": 0.5, "other": 0}
    depth = tasks["depth"]
    assert (depth["unit"], depth["min"], depth["max"], depth["mean"]) == ("metre", 1, 9, 4)
    assert tasks["normals"]["mean"] == pytest.approx([0, 0, -0.75])
    assert tasks["normals"]["not_unit"] == 0.5
    assert tasks["edge"]["positive"] == pytest.approx(1 / 7)


def test_nothing_to_tell_is_null():
    record = check(Made([None]))
    assert record["readable"] == 0
    assert record["image"] == {"mean": None, "std": None}
    assert record["tasks"]["depth"] == {
        "frames": 0, "invalid": None, "unit": "metre", "min": None, "max": None, "mean": None
    }  # fmt: skip
    assert record["tasks"]["semseg"]["classes"] == {"floor": None, "wall": None, "other": None}


def decoded(data: bytes) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_the_sheet_shows_images_and_truths_in_their_colours(made):
    sheet = Sheet(made)
    check(made, look=sheet.look)
    picture = decoded(sheet.png())
    assert picture.shape[1] == 6 + 5 * (WIDTH + 6)
    labels = made.frames[0].truth["semseg"]
    for pixels in (image(0), colourise(labels, SPECS[0]), colourise(made.frames[0].truth["depth"], SPECS[1])):
        colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
        found = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        assert colours <= found
    # Row a, then b, which has no depth: an empty field; its labels are those of a.
    height = WIDTH // 2
    line = 16 + 6
    top_a, top_b = line, line + height + line
    column = 6 + (WIDTH + 6)
    rows_a, rows_b = slice(top_a, top_a + height), slice(top_b, top_b + height)
    labels_columns = slice(column, column + WIDTH)
    np.testing.assert_array_equal(picture[rows_a, labels_columns], picture[rows_b, labels_columns])
    depth_columns = slice(column + WIDTH + 6, column + 2 * WIDTH + 6)
    assert set(np.unique(picture[rows_b, depth_columns])) == {120, 225}
    assert (picture[rows_a, 6 : 6 + WIDTH] == 0).all()


def test_frames_of_the_sheet_are_spread_over_the_data():
    frames = [Sample(str(index), image(index), {}) for index in range(30)]
    data = Made([*frames])
    sheet = Sheet(data, rows=3)
    check(data, look=sheet.look)
    picture = decoded(sheet.png())
    assert [value for value in range(30) if (picture == value).all(axis=2).sum() > WIDTH * WIDTH / 4] == [0, 10, 20]


def test_the_colours_of_all_classes_stand_below():
    data = Made([Sample("a", image(9), {})])
    sheet = Sheet(data)
    check(data, look=sheet.look)
    legend = decoded(sheet.png())[-22:]
    for colour in SPECS[0].palette:
        assert (legend == colour).all(axis=2).sum() == 16 * 16
    many = tuple(f"class number {index}" for index in range(60))
    data.specs = (TaskSpec("semseg", class_names=many),)
    sheet = Sheet(data)
    check(data, look=sheet.look)
    picture = decoded(sheet.png())
    assert all((picture == colour).all(axis=2).sum() >= 16 * 16 for colour in data.specs[0].palette)


def test_a_sheet_of_nothing_has_its_heads():
    data = Made([None])
    sheet = Sheet(data)
    check(data, look=sheet.look)
    assert (decoded(sheet.png()) < 128).any()
