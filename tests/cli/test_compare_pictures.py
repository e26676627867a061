"""The pictures of `emadeploy compare`: which frames, which colours, which numbers beside them."""

import json
from pathlib import Path

import numpy as np
import pytest

from emadeploy.cli.compare_parts.contact import MEASURES, contact, heat, scale_of
from emadeploy.cli.compare_parts.gallery import Gallery
from emadeploy.contract.colour import colourise
from emadeploy.contract.errors import DataError
from emadeploy.contract.spec import TaskSpec
from emadeploy.contract.tasks import KINDS
from emadeploy.data.sample import Sample
from emadeploy.evaluate.compare import ComparedFrame
from emadeploy.evaluate.parity import Parity

cv2 = pytest.importorskip("cv2")

SEMSEG = TaskSpec("semseg", class_names=("floor", "wall", "bed"))
DEPTH, NORMALS = TaskSpec("depth"), TaskSpec("normals")
TASKS = (SEMSEG, DEPTH, NORMALS)
NAMES = Path("runs/a"), Path("runs/b")
RECORD = {"schema": 1, "a": "runs/a", "b": "runs/b", "data": "here", "frames": 3}
#: Lines above and below the panels.
LINE = 22


def compared(name: str, share: float, size: tuple[int, int] = (10, 360)) -> ComparedFrame:
    """Return a frame where A and B differ on the left ``share`` of the pixels, in every task."""
    H, W = size
    different = np.arange(W)[None].repeat(H, 0) < share * W
    down, left = np.array([0, 1, 0], np.float32), np.array([1, 0, 0], np.float32)
    b = {
        "semseg": np.zeros(size, np.uint8),
        "depth": np.linspace(1, 3, H * W, dtype=np.float32).reshape(size),
        "normals": np.broadcast_to(down, (H, W, 3)).copy(),
    }
    a = {
        "semseg": np.where(different, 1, b["semseg"]).astype(np.uint8),
        "depth": np.where(different, 1.1 * b["depth"], b["depth"]).astype(np.float32),
        "normals": np.where(different[..., None], left, b["normals"]),
    }
    return ComparedFrame(Sample(name, np.full((H, W, 3), 99, np.uint8), {}), a, b, Parity(TASKS).update(a, b))


def panels(sheet: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Return the images of the four panels of a contact picture."""
    return [sheet[LINE : LINE + height, index * width : (index + 1) * width] for index in range(4)]


def test_heat_goes_from_black_to_white_at_the_scale():
    colours = heat(np.array([[0.0, 1.0, 2.0, 3.0, 9.0]]), 3.0)[0].tolist()
    assert colours == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]
    assert not heat(np.zeros((2, 2)), 0.0).any()


def test_the_scale_is_the_99th_percentile_or_the_largest():
    difference = np.zeros((10, 100))
    difference[0, 0] = 7
    assert scale_of(difference, DEPTH) == 7
    assert scale_of(np.linspace(0, 1, 101)[None], DEPTH) == pytest.approx(0.99)
    assert scale_of(difference, SEMSEG) == 1
    assert scale_of(np.zeros((2, 2)), DEPTH) == 0


def test_every_kind_of_task_has_a_measure():
    assert set(MEASURES) == set(KINDS)
    assert MEASURES["depth"].text(0.0125) == "1.25 %"
    assert MEASURES["edge"].text(0.5) == "0.5"


def test_labels_show_the_pixels_of_another_class_and_the_classes_that_occur():
    frame = compared("12", 0.25)
    sheet = contact(frame, SEMSEG, NAMES)
    assert sheet.shape == (LINE + 10 + LINE + LINE, 4 * 360, 3)
    shown, a, b, difference = panels(sheet, 10, 360)
    np.testing.assert_array_equal(shown, frame.sample.image)
    np.testing.assert_array_equal(a, colourise(frame.a["semseg"], SEMSEG))
    np.testing.assert_array_equal(b, colourise(frame.b["semseg"], SEMSEG))
    assert (difference[:, :90] == 255).all()
    assert not difference[:, 90:].any()
    legend = {tuple(colour) for colour in sheet[-LINE:].reshape(-1, 3).tolist()}
    assert set(SEMSEG.palette[:2]) <= legend
    assert SEMSEG.palette[2] not in legend


def test_depth_has_one_range_for_both_and_a_scale_under_the_difference():
    frame = compared("12", 0.5)
    sheet = contact(frame, DEPTH, NAMES)
    _, a, b, difference = panels(sheet, 10, 360)
    near, far = np.percentile(frame.b["depth"], (2, 98))
    span = float(near), float(far)
    np.testing.assert_array_equal(a, colourise(frame.a["depth"], DEPTH, span))
    np.testing.assert_array_equal(b, colourise(frame.b["depth"], DEPTH, span))
    assert difference[:, :170].min() > 200
    assert not difference[:, 180:].any()
    bar = sheet[-LINE + 8, 3 * 360 + 6 : 3 * 360 + 6 + 96].sum(axis=1, dtype=int)
    assert (bar[0], bar[-1]) == (0, 3 * 255)
    assert (np.diff(bar) >= 0).all()


def test_a_difference_of_normals_is_drawn_in_degrees():
    sheet = contact(compared("12", 0.5), NORMALS, NAMES)
    difference = panels(sheet, 10, 360)[3]
    assert (difference[:, :180] == 255).all()
    assert not difference[:, 180:].any()


@pytest.mark.parametrize(("size", "panel"), [((8, 40), (72, 360)), ((80, 1280), (40, 640))])
def test_small_frames_are_enlarged_and_large_ones_reduced(size, panel):
    assert contact(compared("12", 0.5, size), NORMALS, NAMES).shape == (panel[0] + 2 * LINE, 4 * panel[1], 3)


def test_labels_stay_classes_when_they_are_reduced():
    _, a, *_ = panels(contact(compared("12", 0.3, (80, 1280)), SEMSEG, NAMES), 40, 640)
    assert {tuple(colour) for colour in a.reshape(-1, 3).tolist()} == set(SEMSEG.palette[:2])


def test_the_frames_that_differ_most_are_kept_in_order(tmp_path):
    gallery = Gallery(2, (SEMSEG, NORMALS), NAMES)
    for name, share in (("same", 0.0), ("a bit/x 1.jpg", 0.25), ("most", 0.75), ("as much", 0.25), ("half", 0.5)):
        gallery.look(compared(name, share))
    gallery.write(tmp_path, RECORD)
    index = json.loads((tmp_path / "index.json").read_text())
    files = ["semseg-1-most.png", "semseg-2-half.png", "normals-1-most.png", "normals-2-half.png"]
    assert [entry["file"] for entry in index["pictures"]] == files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "index.json"])
    assert {key: index[key] for key in RECORD} == RECORD
    labels, _, angles, _ = index["pictures"]
    assert labels["difference"] == {"what": "pixels of another class", "mean": 75.0, "unit": "%"}
    assert angles["difference"]["mean"] == pytest.approx(0.75 * 90)
    assert angles["heat"] == {"black": 0.0, "white": 90.0, "unit": "deg"}
    written = cv2.imread(str(tmp_path / files[0]))[:, :, ::-1]
    np.testing.assert_array_equal(written, contact(compared("most", 0.75), SEMSEG, NAMES))


def test_of_frames_that_differ_as_much_the_earlier_stays(tmp_path):
    gallery = Gallery(1, (NORMALS,), NAMES)
    for name in ("a bit/x 1.jpg", "later"):
        gallery.look(compared(name, 0.25))
    gallery.write(tmp_path, RECORD)
    assert (tmp_path / "normals-1-x-1.png").is_file()


def test_a_disk_that_refuses_is_a_data_error_and_leaves_nothing_half(tmp_path):
    gallery = Gallery(1, (NORMALS,), NAMES)
    gallery.look(compared("x", 0.5))
    (tmp_path / "normals-1-x.png").mkdir()
    with pytest.raises(DataError, match=r"normals-1-x.png cannot be written"):
        gallery.write(tmp_path, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["normals-1-x.png"]
