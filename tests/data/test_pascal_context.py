"""PASCAL-Context as ASTMT packed it."""

import shutil

import numpy as np
import pytest
from layouts import write_pascal, write_png

from emadeploy.contract.errors import DataError
from emadeploy.data.pascal_context import boundaries, open_pascal_context
from emadeploy.data.pascal_tables import NORMALS_CLASSES, PART_CLASS

scipy_io = pytest.importorskip("scipy.io")
pytest.importorskip("PIL")


@pytest.fixture
def made(tmp_path):
    """Return the maps by image, and the folder that holds PASCAL_MT."""
    return write_pascal(tmp_path / "PASCAL_MT"), tmp_path


def test_every_task_is_read(made):
    maps, root = made
    data = open_pascal_context(root, "val")
    assert data.description == f"pascal-context:{root} val"
    assert set(data.tasks) == {"semseg", "human_parts", "saliency", "edge", "normals"}
    assert data.tasks == tuple(spec.name for spec in data.specs)
    assert [sample.name for sample in data] == ["2008_000002", "2008_000003"]
    sample, stored = data[0], maps["2008_000002"]
    np.testing.assert_array_equal(sample.truth["semseg"], stored["semseg"])
    np.testing.assert_array_equal(sample.truth["saliency"], stored["saliency"] > 127.5)
    parts = np.zeros((12, 18), np.uint8)
    parts[:4, :5], parts[4:9, :5] = 1, 5  # head, upper leg
    np.testing.assert_array_equal(sample.truth["human_parts"], parts)
    normals = 2 * stored["normals"][:, :9].astype(np.float64) / 255 - 1
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    np.testing.assert_allclose(sample.truth["normals"][:, :9], normals, atol=1e-5)
    assert not sample.truth["normals"][:, 9:].any()  # the sky
    # The border is two pixels wide before it is thinned.
    assert sample.truth["edge"].dtype == np.uint8
    assert sample.truth["edge"].sum(axis=0)[[8, 9]].sum() > 8
    assert not np.delete(sample.truth["edge"], [8, 9], axis=1).any()


def test_an_image_without_parts_of_people_has_no_truth_for_them(made):
    data = open_pascal_context(made[1], "val")
    assert "human_parts" in data.tasks
    assert set(data[1].truth) == set(data.tasks) - {"human_parts"}


def test_the_folder_itself_may_be_named_and_the_other_labels_are_found(made):
    maps, root = made
    data = open_pascal_context(root / "PASCAL_MT", "train")
    np.testing.assert_array_equal(data[0].truth["semseg"], maps["2008_000001"]["semseg"])


def test_tasks_are_those_whose_folders_are_there(made):
    root = made[1] / "PASCAL_MT"
    shutil.rmtree(root / "normals_distill")
    assert set(open_pascal_context(root).tasks) == {"semseg", "human_parts", "saliency", "edge"}
    shutil.rmtree(root / "pascal-context")
    assert set(open_pascal_context(root).tasks) == {"semseg", "human_parts", "saliency"}
    for folder in ("semseg", "human_parts", "sal_distill"):
        shutil.rmtree(root / folder)
    with pytest.raises(DataError, match="has no truth; expected at least one of human_parts"):
        open_pascal_context(root)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("ImageSets/Context/val.txt", None, r"val.txt is not there; unpack PASCAL_MT.tgz"),
        ("ImageSets/Context/val.txt", "\n", "val.txt names no image"),
        ("ImageSets/Context/val.txt", "../secret\n", r"val.txt holds '../secret', which is not the name of an image"),
        ("JPEGImages/2008_000003.jpg", None, r"2008_000003.jpg is not there, and 0 others"),
    ],
)
def test_lists_that_do_not_fit_are_refused(made, path, text, message):
    place = made[1] / "PASCAL_MT" / path
    place.unlink()
    if text is not None:
        place.write_text(text)
    with pytest.raises(DataError, match=message):
        open_pascal_context(made[1])


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("semseg/pascal-context/2008_000002.png", None, "cannot be read: No such file"),
        (
            "semseg/pascal-context/2008_000002.png",
            np.full((12, 18), 21, np.uint8),
            "holds the class 21; expected 0 to 20",
        ),
        ("semseg/pascal-context/2008_000002.png", np.zeros((5, 5), np.uint8), "is 5 x 5 pixels, its image 12 x 18"),
        (
            "sal_distill/2008_000002.png",
            np.zeros((12, 18, 3), np.uint8),
            r"has shape \(12, 18, 3\) of uint8; expected grey of 8",
        ),
        (
            "normals_distill/2008_000002.png",
            np.zeros((12, 18), np.uint8),
            r"has shape \(12, 18\) of uint8; expected RGB of 8",
        ),
        ("normals_distill/2008_000002.png", np.zeros((3, 3, 3), np.uint8), "is of another size than"),
        ("human_parts/2008_000002.mat", {"anno": np.zeros((2, 2))}, "is not an annotation of PASCAL-Part"),
        ("human_parts/2008_000002.mat", {"other": 1}, "holds no anno"),
        ("pascal-context/trainval/2008_000002.mat", {"LabelMap": np.zeros(4)}, r"LabelMap has shape \(1, 4\)"),
        ("JPEGImages/2008_000002.jpg", b"", "is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(made, path, content, message):
    place = made[1] / "PASCAL_MT" / path
    place.unlink()
    if isinstance(content, dict):
        scipy_io.savemat(place, content)
    elif isinstance(content, bytes):
        place.write_bytes(content)
    elif content is not None:
        write_png(place, content)
    data = open_pascal_context(made[1])
    with pytest.raises(DataError, match=rf"{place.name}:? {message}"):
        data[0]
    assert data[1].name == "2008_000003"  # the others can be read


def test_boundaries_are_where_the_laplacian_is_not_zero():
    labels = np.zeros((9, 11), np.uint16)
    labels[4, 5] = 7
    laplacian = np.zeros((9, 11), bool)
    laplacian[3:6, 5] = laplacian[4, 4:7] = True
    assert boundaries(labels).any()
    assert not (boundaries(labels) & ~laplacian).any()
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(3)
    random = np.kron(rng.integers(0, 4, (6, 5)), np.ones((4, 5))).astype(np.uint16)
    around = np.abs(cv2.Laplacian(random, cv2.CV_64F)) > 0
    morphology = pytest.importorskip("skimage.morphology")
    np.testing.assert_array_equal(boundaries(random), morphology.thin(around))


def test_tables_are_whole():
    assert set(PART_CLASS.values()) == set(range(1, 7))
    assert len(PART_CLASS) == 24
    # The labels of PASCAL-Context are numbered in the order of their names.
    assert list(NORMALS_CLASSES) == sorted(NORMALS_CLASSES)
    assert list(NORMALS_CLASSES.values()) == sorted(set(NORMALS_CLASSES.values()))
    assert (NORMALS_CLASSES["person"], NORMALS_CLASSES["tvmonitor"], NORMALS_CLASSES["wall"]) == (284, 427, 440)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("coffee machine", "coffee"),
        ("comb", "coffee machine"),
        ("computer", "comb"),
        ("corkscrew", "cork"),
        ("counter", "corkscrew"),
        ("fork", "forceps"),
        ("fruit", "frog"),
        ("furnace", "funnel"),
        ("guitar", "guardrail"),
        ("hammer", "gun"),
        ("rope", "rocking horse"),
        ("rug", "rope"),
        ("wallet", "wall"),
    ],
)
def test_labels_are_those_of_pascal_context(name, before):
    """Of names that stand side by side in `context_classes.json` of MTI-Net, the second has the next number."""
    known = {"coffee": 82, "cork": 94, "forceps": 164, "frog": 171, "funnel": 173, "guardrail": 190, "gun": 192}
    known |= {"rocking horse": 328, **NORMALS_CLASSES}
    assert known[name] == known[before] + 1
