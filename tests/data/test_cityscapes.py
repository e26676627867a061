"""The preprocessed Cityscapes: both sets of classes, inverse depth, and what is refused."""

import numpy as np
import pytest

from emadeploy.contract.errors import DataError
from emadeploy.data.cityscapes import open_cityscapes

SIZE = (4, 8)


@pytest.fixture
def data(tmp_path):
    """Return a folder with two frames in val/ as the release has them."""
    rng = np.random.default_rng(1)
    for index in range(2):
        maps = {
            "image": rng.random((*SIZE, 3)),
            "label_7": rng.integers(-1, 7, SIZE),
            "label_19": rng.integers(-1, 19, SIZE),
            "depth": rng.uniform(0, 0.49, (*SIZE, 1)),
        }
        for name, array in maps.items():
            (tmp_path / "val" / name).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "val" / name / f"{index}.npy", array)
    return tmp_path


@pytest.mark.parametrize(("classes", "kind"), [(19, "cityscapes"), (7, "cityscapes-7")])
def test_labels_and_inverse_depth_are_read(data, classes, kind):
    dataset = open_cityscapes(data, "val", classes=classes)
    assert dataset.description == f"{kind}:{data} val"
    assert [(spec.name, spec.channels, spec.unit, spec.direction) for spec in dataset.specs] == [
        ("semseg", classes, None, None),
        ("depth", 1, "inverse_depth", "nearer_is_larger"),
    ]
    stored = np.load(data / "val" / f"label_{classes}" / "1.npy")
    np.testing.assert_array_equal(dataset[1].truth["semseg"], np.where(stored < 0, 255, stored))
    np.testing.assert_allclose(dataset[1].truth["depth"], np.load(data / "val" / "depth" / "1.npy")[..., 0], rtol=1e-6)


def test_the_other_labels_are_pointed_to(data):
    for index in range(2):
        (data / "val" / "label_19" / f"{index}.npy").unlink()
    (data / "val" / "label_19").rmdir()
    with pytest.raises(DataError, match=r"has label_7/ and no label_19/; its 7 classes are cityscapes-7:"):
        open_cityscapes(data, "val")
    assert len(open_cityscapes(data, "val", classes=7)) == 2


def test_what_is_no_such_folder_is_refused(data):
    with pytest.raises(DataError, match=r"has no folder train/; expected train/\{image,label_19,depth\}"):
        open_cityscapes(data, "train")
    with pytest.raises(DataError, match="split 'test' is unknown; known: train, val"):
        open_cityscapes(data, "test")
    np.save(data / "val" / "label_7" / "0.npy", np.full(SIZE, 7))
    with pytest.raises(DataError, match=r"label_7/0.npy holds the class 7; expected 0 to 6, or -1, 255"):
        open_cityscapes(data, "val", classes=7)[0]


def test_the_record_of_another_data_set_is_refused(data):
    (data / "dataset.json").write_text('{"dataset": "nyuv2", "classes": "nyuv2-13", "size": [4, 8]}')
    with pytest.raises(DataError, match="is of nyuv2; open the folder as nyuv2:"):
        open_cityscapes(data, "val")
