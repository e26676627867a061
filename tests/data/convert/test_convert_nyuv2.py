"""Raw NYUv2 into the preprocessed layout: axes, classes, splits, normals."""

import numpy as np
import pytest
from layouts import write_raw_nyuv2

from emadeploy.contract.errors import BackendMissing, DataError, SpecError
from emadeploy.contract.tasks import NYUV2_40
from emadeploy.data.convert import convert
from emadeploy.data.label_tables import nyuv2_table
from emadeploy.data.nyuv2 import open_nyuv2

pytest.importorskip("h5py")
pytest.importorskip("scipy")
pytest.importorskip("cv2")

#: What is left of 480 x 640: at this size nothing is resized.
SIZE = (426, 560)
CROP = (slice(45, 471), slice(41, 601))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the variables of a raw data set, its folder, and what it was converted to."""
    folder = tmp_path_factory.mktemp("nyuv2")
    variables = write_raw_nyuv2(folder / "raw")
    convert(folder / "raw", folder / "out", size=SIZE)
    return variables, folder / "raw", folder / "out"


def test_every_number_arrives_where_it_was(made):
    variables, _, out = made
    for split, frames in (("train", [2, 4]), ("val", [1, 3])):
        data = open_nyuv2(out, split)
        assert len(data) == len(frames)
        assert (out / split / "names.txt").read_text().split() == [str(frame) for frame in frames]
        for sample, frame in zip(data, frames, strict=True):
            np.testing.assert_array_equal(sample.image, variables["images"][frame - 1][CROP])
            np.testing.assert_array_equal(sample.truth["depth"], variables["depths"][frame - 1][CROP])
            labels = variables["labels"][frame - 1][CROP]
            np.testing.assert_array_equal(sample.truth["semseg"], nyuv2_table(13)[labels])


def test_normals_are_computed_where_the_sensor_saw(made):
    _, _, out = made
    data = open_nyuv2(out, "val")
    normals = data[0].truth["normals"]
    unseen = np.arange(560) + 41 < 100
    assert not normals[:, unseen].any()
    np.testing.assert_allclose(np.linalg.norm(normals[:, ~unseen], axis=2), 1, atol=1e-5)
    assert (normals[:, ~unseen, 2] < 0).all()  # toward the camera
    [spec] = [spec for spec in data.specs if spec.name == "normals"]
    assert (spec.frame, spec.direction) == ("camera_optical", "toward_camera")


def test_the_default_size_is_that_of_the_recipe(made, tmp_path):
    _, raw, _ = made
    record = convert(raw / "nyu_depth_v2_labeled.mat", tmp_path / "out")
    assert record.size == (288, 384)
    assert open_nyuv2(tmp_path / "out", "train")[0].image.shape == (288, 384, 3)


def test_forty_classes_are_read_back_as_forty(made, tmp_path):
    variables, raw, _ = made
    convert(raw, tmp_path / "out", size=SIZE, classes=40)
    data = open_nyuv2(tmp_path / "out", "train")
    assert data.specs[0].class_names == NYUV2_40
    np.testing.assert_array_equal(data[0].truth["semseg"], nyuv2_table(40)[variables["labels"][1][CROP]])


def test_normals_and_classes_that_are_given_are_taken(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    raw = tmp_path / "raw"
    variables = write_raw_nyuv2(raw, sensor=False)
    mapping = np.random.default_rng(1).integers(1, 41, 894)
    savemat(raw / "classMapping40.mat", {"mapClass": mapping[None].astype(np.uint8)})
    normals = np.random.default_rng(2).normal(size=(4, 480, 640, 3))
    normals /= np.linalg.norm(normals, axis=3, keepdims=True)
    (raw / "normals").mkdir()
    for number in range(1, 5):
        np.save(raw / "normals" / f"{number}.npy", normals[number - 1].astype(np.float32))
    record = convert(raw, tmp_path / "out", size=SIZE, classes=40)
    assert "given" in record.notes["normal"]
    assert "classMapping40.mat" in record.notes["label"]
    data = open_nyuv2(tmp_path / "out", "train")
    assert data.specs[2].frame == "dataset"
    np.testing.assert_allclose(data[0].truth["normals"], normals[1][CROP], atol=1e-6)
    labels = variables["labels"][1][CROP]
    expected = np.where(labels == 0, 255, np.concatenate([[0], mapping])[labels] - 1)
    np.testing.assert_array_equal(data[0].truth["semseg"], expected)
    (raw / "normals" / "2.npy").unlink()
    with pytest.raises(DataError, match=r"normals/2.npy cannot be read"):
        convert(raw, tmp_path / "again", size=SIZE)


def test_splits_are_never_invented(tmp_path):
    raw = tmp_path / "raw"
    write_raw_nyuv2(raw)
    (raw / "splits.mat").rename(tmp_path / "elsewhere.mat")
    with pytest.raises(DataError, match=r"splits.mat is not there: NYUv2 is split by its makers'.*--splits"):
        convert(raw, tmp_path / "out")
    convert(raw, tmp_path / "out", size=(30, 40), splits=tmp_path / "elsewhere.mat")
    assert len(open_nyuv2(tmp_path / "out", "train")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": [1, 2], "val": [2, 3]}, "lists a frame twice"),
        ({"train": [1, 2], "val": [5]}, "lists frame 5; nyu_depth_v2_labeled.mat has frames 1 to 4"),
        ({"train": [0, 2], "val": [1]}, "lists frame 0"),
        ({"train": [], "val": [1]}, "leaves a split empty"),
        ({"labels": np.zeros((4, 10, 10), np.uint16)}, r"labels has shape \(4, 10, 10\); expected \(N, 640, 480\)"),
        ({"depths": np.zeros((3, 480, 640), np.float32)}, r"are of \[3, 4\] frames"),
    ],
)
def test_a_data_set_that_contradicts_itself_is_refused(tmp_path, options, message):
    write_raw_nyuv2(tmp_path, **options)
    with pytest.raises(DataError, match=message):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full((4, 480, 640), 895, np.uint16)}, "frame 2: holds the label 895; expected 0 to 894"),
        ({"depths": np.full((4, 480, 640), np.nan, np.float32)}, "frame 2: holds values that are not finite"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(tmp_path, changes, message):
    write_raw_nyuv2(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        convert(tmp_path, tmp_path / "out")


def test_files_that_are_not_what_they_should_be_are_named(tmp_path):
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file, and nothing of it")
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled.mat cannot be read as a MATLAB 7.3 file"):
        convert(tmp_path, tmp_path / "out")
    write_raw_nyuv2(tmp_path)
    (tmp_path / "splits.mat").write_bytes(b"no MATLAB at all")
    with pytest.raises(DataError, match=r"splits.mat cannot be read as a MATLAB file"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(SpecError, match="nyuv2 has no 19 classes; known: 13, 40"):
        convert(tmp_path, tmp_path / "out", classes=19)
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "classMapping40.mat", {"mapClass": np.ones(13)})
    with pytest.raises(DataError, match=r"classMapping40.mat has 13 entries"):
        convert(tmp_path, tmp_path / "out")


def test_without_h5py_the_line_that_installs_it(tmp_path, monkeypatch):
    import sys

    write_raw_nyuv2(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BackendMissing, match=r"pip install 'emadeploy\[data\]'"):
        convert(tmp_path, tmp_path / "out")
