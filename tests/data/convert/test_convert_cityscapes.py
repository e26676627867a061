"""Raw Cityscapes into the preprocessed layout: every number, resumed, refused."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from layouts import CITYSCAPES_SIZE, write_png, write_raw_cityscapes

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.cityscapes import open_cityscapes
from emadeploy.data.convert import cityscapes as module
from emadeploy.data.convert import convert
from emadeploy.data.convert.cityscapes import inverse_depth, resize_area
from emadeploy.data.label_tables import cityscapes_table
from emadeploy.data.optional import read_png
from emadeploy.pictures import read_picture

pytest.importorskip("PIL")
pytest.importorskip("cv2")


@pytest.mark.parametrize("nested", [False, True], ids=["side by side", "as the archives unpack"])
@pytest.mark.parametrize("classes", [19, 7])
def test_every_number_arrives(tmp_path, nested, classes):
    raw, out = tmp_path / "raw", tmp_path / "out"
    frames = write_raw_cityscapes(raw, nested=nested)
    record = convert(raw, out, size=CITYSCAPES_SIZE, classes=classes)
    assert (record.dataset, record.classes, record.size) == ("cityscapes", f"cityscapes-{classes}", CITYSCAPES_SIZE)
    seen = []
    for split in ("train", "val"):
        data = open_cityscapes(out, split, classes=classes)
        assert data.tasks == ("semseg", "depth")
        names = (out / split / "names.txt").read_text().split()
        assert len(data) == len(names)
        for sample, name in zip(data, names, strict=True):
            seen.append((split, name))
            places = {
                package: (raw / f"{package}_trainvaltest" / package if nested else raw / package) / split
                for package in ("leftImg8bit", "gtFine", "disparity")
            }
            np.testing.assert_array_equal(sample.image, read_picture(places["leftImg8bit"] / f"{name}_leftImg8bit.png"))
            ids = read_png(places["gtFine"] / f"{name}_gtFine_labelIds.png")
            np.testing.assert_array_equal(sample.truth["semseg"], cityscapes_table(classes)[ids])
            disparity = read_png(places["disparity"] / f"{name}_disparity.png").astype(np.float64)
            expected = np.where(disparity > 0, (disparity - 1) / 65536, 0)
            np.testing.assert_allclose(sample.truth["depth"], expected, rtol=1e-6)
    assert seen == frames


def test_the_largest_disparity_is_what_the_release_has():
    # github.com/lorenmt/mtan, issue 25: 32257 in the raw PNG, 0.4922 in the release.
    assert inverse_depth(np.array([32257], np.uint16))[0] == pytest.approx(0.4922, abs=5e-5)
    assert inverse_depth(np.array([0, 1, 257], np.uint16)).tolist() == [0, 0, 1 / 256]


def test_a_smaller_size_averages_images_and_picks_truths(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw_cityscapes(raw)
    convert(raw, out, size=(4, 8))
    sample = open_cityscapes(out, "val")[0]
    name = (out / "val" / "names.txt").read_text().strip()
    image = read_picture(raw / "leftImg8bit" / "val" / f"{name}_leftImg8bit.png")
    means = image.reshape(4, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(sample.image - means).max() <= 1
    ids = read_png(raw / "gtFine" / "val" / f"{name}_gtFine_labelIds.png")
    np.testing.assert_array_equal(sample.truth["semseg"], cityscapes_table(19)[ids[2::4, 2::4]])


def test_a_larger_size_has_no_holes():
    image = np.full((4, 6, 3), 70, np.uint8)
    assert (resize_area(image, (10, 20)) == 70).all()


def test_a_conversion_is_resumed_and_does_nothing_twice(tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw_cityscapes(raw)
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(raw, out, size=(4, 8), progress=stop)
    assert seen == [(1, 4), (2, 4)]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert len(before) == 6
    read = []
    monkeypatch.setattr(module, "read_picture", lambda path: read.append(path) or read_picture(path))
    convert(raw, out, size=(4, 8))
    assert len(read) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (len(open_cityscapes(out, "train")), len(open_cityscapes(out, "val"))) == (3, 1)
    assert not list(out.rglob(".*"))


def test_a_frame_that_was_begun_is_made_again(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw_cityscapes(raw)
    convert(raw, out, size=(4, 8))
    whole = (out / "train" / "depth" / "1.npy").read_bytes()
    (out / "train" / "image" / "1.npy").unlink()  # it is written last
    (out / "train" / "depth" / "1.npy").write_bytes(whole[:-9])
    convert(raw, out, size=(4, 8))
    assert (out / "train" / "depth" / "1.npy").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (4, 4)}, r"dataset.json: the folder was made with size \(4, 8\), now \(4, 4\)"),
        ({"classes": 7}, r"classes 'cityscapes-19', now 'cityscapes-7'.*choose another folder"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, change, message):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw_cityscapes(raw)
    convert(raw, out, size=(4, 8))
    with pytest.raises(DataError, match=message):
        convert(raw, out, **{"size": (4, 8), **change})


def test_folders_of_something_else_are_refused(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw_cityscapes(raw)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty and has no dataset.json; choose another folder"):
        convert(raw, out)
    (out / "thesis.txt").unlink()
    convert(raw, out, size=(4, 8))
    write_png(raw / "leftImg8bit/train/aachen/aachen_000000_000001_leftImg8bit.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"names.txt lists other frames than the raw data set has now"):
        convert(raw, out, size=(4, 8))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        convert(raw, tmp_path / "file" / "out")


def test_packages_that_are_missing_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist.*nyu_depth_v2_labeled.mat .* nor leftImg8bit/"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="holds neither"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(DataError, match=r"has no gtFine/, no disparity/; unpack gtFine_trainvaltest.zip, disparity_tr"):
        convert(tmp_path, tmp_path / "out")
    for package in ("gtFine", "disparity"):
        (tmp_path / package).mkdir()
    with pytest.raises(DataError, match=r"leftImg8bit/train holds no CITY/\*_leftImg8bit.png"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("package", "ending", "pixels", "message"),
    [
        ("gtFine", "gtFine_labelIds", np.full(CITYSCAPES_SIZE, 34, np.uint8), "holds the id 34; ids go from 0 to 33"),
        ("gtFine", "gtFine_labelIds", np.zeros((8, 8), np.uint8), "is 8 x 8 pixels, its image 16 x 32"),
        (
            "gtFine",
            "gtFine_labelIds",
            np.zeros((*CITYSCAPES_SIZE, 3), np.uint8),
            r"has shape \(16, 32, 3\) of uint8; expected \(H, W\) of uint8",
        ),
        (
            "disparity",
            "disparity",
            np.zeros(CITYSCAPES_SIZE, np.uint8),
            r"has shape \(16, 32\) of uint8; expected \(H, W\) of uint16",
        ),
        ("disparity", "disparity", None, "cannot be read: No such file"),
        ("leftImg8bit", "leftImg8bit", b"\x89PNG\r\n\x1a\n damaged", "is damaged, or not a picture"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, package, ending, pixels, message):
    raw = tmp_path / "raw"
    write_raw_cityscapes(raw)
    path = raw / package / "train" / "bochum" / f"bochum_000000_000313_{ending}.png"
    path.unlink()
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    elif pixels is not None:
        write_png(path, pixels)
    with pytest.raises(DataError, match=rf"bochum_000000_000313_{ending}.png {message}"):
        convert(raw, tmp_path / "out", size=(4, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 13}, "cityscapes has no 13 classes; known: 19, 7"),
        ({"size": (0, 8)}, "size 0x8 is not positive"),
        ({"splits": "splits.mat"}, "split by its folders"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    write_raw_cityscapes(tmp_path)
    with pytest.raises(SpecError, match=message):
        convert(tmp_path, tmp_path / "out", **options)


def test_the_record_says_what_was_made(tmp_path):
    write_raw_cityscapes(tmp_path / "raw")
    convert(tmp_path / "raw", tmp_path / "out", size=(4, 8))
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record["schema"] == 1
    assert record["size"] == [4, 8]
    assert record["classes"] == "cityscapes-19"
    assert set(record["notes"]) == {"image", "label_19", "depth"}


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file that is not a half-written one."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_conversion_that_was_killed_ends_as_one_that_was_not(tmp_path, emadeploy_command):
    raw, killed, whole = tmp_path / "raw", tmp_path / "killed", tmp_path / "whole"
    write_raw_cityscapes(raw)
    command = [*emadeploy_command, "data", "convert", str(raw), "--size", "16x32", "-o"]
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(killed.glob("train/image/*.npy")):
        pass
    process.kill()
    process.wait()
    for folder in (killed, whole):
        subprocess.run([*command, str(folder)], check=True, stdout=subprocess.DEVNULL)
    assert len(list(whole.rglob("*.npy"))) == 12
    assert tree(killed) == tree(whole)
