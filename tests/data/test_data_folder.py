"""A user's own folder: what is read of it, what may be missing, what is refused."""

import numpy as np
import pytest
from layouts import DATASET_YML, write_png, write_user_folder

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.spec import TaskSpec
from emadeploy.data.folder import open_folder, read_truth
from emadeploy.data.folder_spec import FolderTask

pytest.importorskip("PIL")
pytest.importorskip("cv2")


def test_every_task_is_read_and_what_is_missing_is_absent(tmp_path):
    made = write_user_folder(tmp_path)
    data = open_folder(tmp_path, "train")
    assert data.description == f"folder:{tmp_path} train"
    assert data.tasks == ("semseg", "depth", "normals", "edge")
    assert [sample.name for sample in data] == ["b", "a"]  # as the list has them
    for sample in data:
        maps = made[sample.name]
        np.testing.assert_array_equal(sample.image, maps["images"])
        np.testing.assert_array_equal(sample.truth["semseg"], np.where(maps["labels"] == 9, 255, maps["labels"]))
        np.testing.assert_allclose(sample.truth["normals"], maps["normals"], atol=1e-6)
        np.testing.assert_array_equal(sample.truth["edge"], maps["edges"] // 255)
    assert set(data[0].truth) == {"semseg", "normals", "edge"}
    depth = made["a"]["depth"].astype(np.float64)
    expected = np.where(np.isin(depth, (0, 65535)), 0, depth / 1000)
    np.testing.assert_allclose(data[1].truth["depth"], expected, rtol=1e-6)
    assert data[1].truth["depth"].dtype == np.float32


def test_a_task_that_no_image_of_the_split_has_is_a_mistake(tmp_path):
    write_user_folder(tmp_path)
    with pytest.raises(
        DataError, match=r"edges holds no NAME.npy or NAME.png for any image of val, such as 'c': .*edge.f"
    ):
        open_folder(tmp_path, "val")


def test_splits_may_be_folders(tmp_path):
    yml = "{image: rgb, splits: {train: t, val: v}, tasks: {saliency: {files: s}}}"
    for split, names in (("t", "ba"), ("v", "c")):
        for name in names:
            write_png(tmp_path / split / "rgb" / f"{name}.jpg", np.full((4, 5, 3), 9, np.uint8))
            write_png(tmp_path / split / "s" / f"{name}.png", np.ones((4, 5), np.uint8))
    (tmp_path / "dataset.yml").write_text(yml)
    assert [sample.name for sample in open_folder(tmp_path, "train")] == ["a", "b"]
    [sample] = open_folder(tmp_path, "val")
    assert (sample.truth["saliency"] == 1).all()


def test_lists_may_name_files_in_folders(tmp_path):
    write_user_folder(tmp_path, "{image: images, splits: {train: l.txt}, tasks: {edge: {files: edges, positive: 255}}}")
    for folder in ("images", "edges"):
        (tmp_path / folder / "day1").mkdir()
        (tmp_path / folder / "a.png").rename(tmp_path / folder / "day1" / "a.png")
    (tmp_path / "l.txt").write_text("day1/a\nb\n")
    data = open_folder(tmp_path, "train")
    assert [sample.name for sample in data] == ["day1/a", "b"]
    assert all("edge" in sample.truth for sample in data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"train.txt is not there; dataset.yml names it as a list of images"),
        ("\n \n", "train.txt names no image"),
        ("a\nb\na\n", "train.txt lists 'a' 2 times"),
        ("../a\n", r"train.txt holds '../a', which leads out of the folder"),
        ("/etc/passwd\n", "leads out of the folder"),
        ("a.png\n", r"images holds no picture 'a.png' .*lists name them without these"),
        ("zebra\n", "holds no picture 'zebra'"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, message):
    write_user_folder(tmp_path)
    (tmp_path / "train.txt").unlink()
    if text is not None:
        (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path, "train")


def test_two_files_of_one_name_are_refused(tmp_path):
    write_user_folder(tmp_path)
    np.save(tmp_path / "depth" / "a.npy", np.ones((10, 14)))
    with pytest.raises(DataError, match=r"depth holds a.npy and a.png; expected one file of that name"):
        open_folder(tmp_path, "train")


def test_mistakes_in_the_yaml_are_named_with_the_file(tmp_path):
    write_user_folder(tmp_path, DATASET_YML.replace("scale: 0.001", "scale: -1"))
    with pytest.raises(SpecError, match=r"dataset.yml: tasks.depth: scale -1 is not a number above 0"):
        open_folder(tmp_path)
    (tmp_path / "dataset.yml").write_text(DATASET_YML.replace(", val: val.txt", ""))
    with pytest.raises(SpecError, match=r"dataset.yml: splits has no val, only train"):
        open_folder(tmp_path, "val")
    with pytest.raises(DataError, match="split 'test' is unknown"):
        open_folder(tmp_path, "test")


@pytest.mark.parametrize(
    ("folder", "pixels", "message"),
    [
        ("labels", np.full((10, 14), 3, np.uint8), r"labels/a.png holds the class 3; expected 0 to 2, or 9 where"),
        ("labels", np.zeros((10, 14, 3), np.uint8), r"labels/a.png has shape \(10, 14, 3\)"),
        ("labels", np.zeros((5, 7), np.uint8), r"labels/a.png is 5 x 7 pixels, its image 10 x 14"),
        ("edges", np.full((10, 14), 7, np.uint8), r"edges/a.png holds the value 7; expected 0, 255"),
        ("images", b"", r"images/a.png is empty"),
        ("depth", b"\x89PNG", r"depth/a.png is not a PNG file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_read(tmp_path, folder, pixels, message):
    write_user_folder(tmp_path)
    path = tmp_path / folder / "a.png"
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        write_png(path, pixels)
    data = open_folder(tmp_path, "train")
    with pytest.raises(DataError, match=message):
        data[1]
    assert data[0].name == "b"


def depth_task(**options) -> FolderTask:
    return FolderTask(TaskSpec("depth"), "d", **options)


def test_depth_may_have_holes_that_are_not_numbers():
    stored = np.array([[np.nan, 2.0, np.inf, 0.0]], np.float32)
    task = depth_task(scale=0.5, invalid=(float("nan"), float("inf")))
    np.testing.assert_array_equal(read_truth(stored, task), [[0, 1, 0, 0]])
    with pytest.raises(DataError, match="not finite"):
        read_truth(stored, depth_task())
    with pytest.raises(DataError, match="holds the depth -1"):
        read_truth(np.array([[-2.0]]), depth_task(scale=0.5))
    with pytest.raises(DataError, match="holds true and false"):
        read_truth(np.array([[True]]), depth_task())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_normals_of_a_png_span_minus_one_to_one(dtype):
    largest = np.iinfo(dtype).max
    stored = np.array([[[largest, largest // 2, largest // 2], [0, 0, 0], [0, largest // 2, largest]]], dtype)
    found = read_truth(stored, FolderTask(TaskSpec("normals"), "n"))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found, [[[1, 0, 0], [0, 0, 0], [-half, 0, half]]], atol=6e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), [[1, 0, 1]], atol=1e-6)
    with pytest.raises(DataError, match="expected -1 to 1"):
        read_truth(np.full((2, 2, 3), 3.0), FolderTask(TaskSpec("normals"), "n"))


def test_edges_may_be_true_and_false_or_ignored():
    task = FolderTask(TaskSpec("edge"), "e", ignore=(7,), positive=2)
    np.testing.assert_array_equal(read_truth(np.array([[0, 2, 7]]), task), [[0, 1, 255]])
    np.testing.assert_array_equal(read_truth(np.array([[False, True]]), task), [[0, 1]])
    with pytest.raises(DataError, match="holds the value 1; expected 0, 2, 7"):
        read_truth(np.array([[0, 1]]), task)
