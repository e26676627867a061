"""The reader of numpy folders: what is right is read, what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest

from emadeploy.contract.errors import DataError
from emadeploy.data.nyuv2 import open_nyuv2

SIZE = (4, 6)


def write_frame(root: Path, index: int, **changes: np.ndarray) -> None:
    """Write one frame as the published release has it; ``changes`` replace maps."""
    rng = np.random.default_rng(index)
    normal = rng.normal(size=(*SIZE, 3))
    maps = {
        "image": rng.random((*SIZE, 3)),
        "label": rng.integers(-1, 13, SIZE).astype(np.float64),
        "depth": rng.uniform(0, 9, (*SIZE, 1)).astype(np.float32),
        "normal": normal / np.linalg.norm(normal, axis=2, keepdims=True),
        **changes,
    }
    for name, array in maps.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        np.save(root / name / f"{index}.npy", array)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with twelve frames in val/."""
    for index in range(12):
        write_frame(tmp_path / "val", index)
    return tmp_path


def test_a_sample_follows_the_conventions(data):
    dataset = open_nyuv2(data)
    assert len(dataset) == 12
    assert dataset.tasks == ("semseg", "depth", "normals")
    assert dataset.description == f"nyuv2:{data} val"
    sample = dataset[3]
    assert {task: (a.dtype.name, a.shape) for task, a in sample.truth.items()} == {
        "semseg": ("uint8", SIZE),
        "depth": ("float32", SIZE),
        "normals": ("float32", (*SIZE, 3)),
    }
    stored = {name: np.load(data / "val" / name / "3.npy") for name in ("image", "label", "depth")}
    assert sample.image.dtype == np.uint8
    np.testing.assert_array_equal(sample.image, np.rint(255 * stored["image"]))
    np.testing.assert_array_equal(sample.truth["semseg"], np.where(stored["label"] < 0, 255, stored["label"]))
    np.testing.assert_array_equal(sample.truth["depth"], stored["depth"][..., 0])


def test_frames_come_in_numeric_order_and_end(data):
    dataset = open_nyuv2(data)
    assert [sample.name for sample in dataset] == [str(i) for i in range(12)]
    with pytest.raises(IndexError):
        dataset[12]


def test_a_limit_keeps_the_first_and_ignores_the_rest(data):
    (data / "val" / "depth" / "11.npy").unlink()
    assert [sample.name for sample in open_nyuv2(data, limit=3)] == ["0", "1", "2"]
    assert len(open_nyuv2(data, limit=10)) == 10
    with pytest.raises(DataError, match=r"depth lacks 11.npy"):
        open_nyuv2(data, limit=99)


def test_uint8_images_integer_labels_and_edges_are_read(tmp_path):
    image = np.arange(72, dtype=np.uint8).reshape(*SIZE, 3)
    label = np.full(SIZE, 12, np.int8)
    edge = np.eye(*SIZE, dtype=bool)
    write_frame(tmp_path / "train", 0, image=image, label=label, edge=edge)
    dataset = open_nyuv2(tmp_path, "train")
    assert dataset.tasks == ("semseg", "depth", "normals", "edge")
    np.testing.assert_array_equal(dataset[0].image, image)
    np.testing.assert_array_equal(dataset[0].truth["semseg"], label)
    np.testing.assert_array_equal(dataset[0].truth["edge"], edge)
    assert dataset[0].truth["edge"].dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((*SIZE, 4))}, r"image/0.npy has shape \(4, 6, 4\); expected \(H, W, 3\)"),
        ({"image": np.full((*SIZE, 3), 200.0)}, "image/0.npy holds values from 200 to 200; expected 0 to 1"),
        ({"image": np.zeros((*SIZE, 3), np.int32)}, "image/0.npy is an image of dtype int32"),
        ({"image": np.full((*SIZE, 3), np.nan)}, "image/0.npy holds values that are not finite"),
        ({"label": np.full(SIZE, 13)}, "label/0.npy holds the class 13; expected 0 to 12"),
        ({"label": np.full(SIZE, -2)}, "label/0.npy holds the class -2"),
        ({"label": np.full(SIZE, 0.5)}, "label/0.npy holds 0.5; expected whole numbers"),
        ({"label": np.zeros((3, 6))}, "label/0.npy is 3 x 6 pixels, its image 4 x 6"),
        ({"depth": np.full(SIZE, -1.0)}, "depth/0.npy holds the depth -1"),
        ({"depth": np.full(SIZE, np.inf)}, "depth/0.npy holds values that are not finite"),
        ({"depth": np.zeros((0, 6))}, r"depth/0.npy has shape \(0, 6\)"),
        ({"normal": np.full((*SIZE, 3), 127.0)}, "normal/0.npy holds values from 127 to 127; expected -1 to 1"),
        ({"normal": np.zeros(SIZE)}, r"normal/0.npy has shape \(4, 6\)"),
        ({"edge": np.full(SIZE, 3)}, "edge/0.npy holds the value 3; expected 0, 1 or 255"),
        ({"depth": np.full(SIZE, "far")}, "depth/0.npy does not hold an array of numbers"),
        ({"depth": np.full(SIZE, None)}, r"depth/0.npy cannot be read as a numpy array.*pickle"),
    ],
)
def test_a_wrong_map_is_refused_with_its_file(tmp_path, change, message):
    write_frame(tmp_path / "val", 0, **change)
    with pytest.raises(DataError, match=message):
        open_nyuv2(tmp_path)[0]


def test_a_file_cut_short_is_refused_with_its_name(data):
    path = data / "val" / "normal" / "5.npy"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"normal/5.npy cannot be read"):
        open_nyuv2(data)[5]


def test_folders_that_hold_different_frames_are_refused(data):
    (data / "val" / "label" / "7.npy").unlink()
    with pytest.raises(DataError, match=r"label lacks 7.npy: label/ has 11 frames, image/ 12"):
        open_nyuv2(data)
    (data / "val" / "image" / "7.npy").unlink()
    with pytest.raises(DataError, match=r"image lacks 7.npy: depth/ has 12 frames, image/ 11"):
        open_nyuv2(data)


def test_missing_folders_and_foreign_names_are_refused(data):
    with pytest.raises(DataError, match=r"nowhere does not exist.*expected val/\{image,label,depth,normal\}"):
        open_nyuv2(data / "nowhere")
    with pytest.raises(DataError, match="has no folder train/"):
        open_nyuv2(data, "train")
    with pytest.raises(DataError, match="split 'test' is unknown; known: train, val"):
        open_nyuv2(data, "test")
    (data / "val" / "label").rename(data / "val" / "labels")
    with pytest.raises(DataError, match="label is not a folder"):
        open_nyuv2(data)
    (data / "val" / "label").mkdir()
    with pytest.raises(DataError, match=r"label holds no .npy file"):
        open_nyuv2(data)
    np.save(data / "val" / "image" / "07.npy", 0)
    with pytest.raises(DataError, match=r"07.npy: the name is not a frame number"):
        open_nyuv2(data)
