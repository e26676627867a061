"""Calibration frames: unfit ones are refused before anything is traced, and a control passes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from emadeploy import zoo
from emadeploy.calibrate import frames as frames_module
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.recipe import load_recipe
from emadeploy.contract.errors import CalibrationError, DataError
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import InputSpec, TensorSpec
from emadeploy.data.sample import Sample

SPEC = InputSpec(32, 64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def pictures(count: int, size: tuple[int, int] = (40, 50)) -> list[np.ndarray]:
    return list(np.random.default_rng(5).integers(0, 256, (count, *size, 3)).astype(np.uint8))


class Pictures:
    description, tasks = "pictures:here", ()

    def __init__(self, images, broken=None):
        self.images, self.broken = images, broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError("7.png is damaged")
        return Sample(str(index), self.images[index], {})


def test_iterating_preprocesses_by_the_one_preprocess_as_often_as_asked():
    images = pictures(3)
    frames = CalibrationFrames(images, SPEC, "here", minimum=3)
    for _ in range(2):
        for found, image in zip(frames, images, strict=True):
            assert found.shape == (1, 3, 32, 64)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, preprocess(image, SPEC))
    assert frames.facts() == {"data": "here", "count": 3, "sha256": frames.digest}


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))])
def test_frames_are_spread_over_the_data_set(count, chosen):
    images = pictures(10)
    frames = CalibrationFrames.from_dataset(Pictures(images), count, SPEC)
    found = list(frames.raw())
    assert [next(i for i, image in enumerate(images) if image is pixels) for pixels in found] == chosen
    assert frames.description == "pictures:here"


def test_the_digest_depends_on_frames_their_order_and_the_preprocessing():
    images = pictures(3)
    others = [images[:2], images[::-1], [*images[:2], images[2] ^ 1]]
    digests = {CalibrationFrames(some, SPEC, "here").digest for some in (images, *others)}
    digests |= {CalibrationFrames(images, spec, "here").digest for spec in (InputSpec(32, 64), InputSpec(64, 64))}
    assert len(digests) == 6
    assert CalibrationFrames([image.copy() for image in images], SPEC, "elsewhere").digest in digests


def test_too_few_frames_are_refused():
    with pytest.raises(CalibrationError, match="here: found 3 frames, needed at least 4; give frames such as"):
        CalibrationFrames(pictures(3), SPEC, "here", minimum=4)
    assert len(CalibrationFrames(pictures(4), SPEC, "here", minimum=4)) == 4


def test_a_recipe_asks_for_its_minimum():
    recipe = replace(load_recipe("trt-int8"), minimum=4)
    CalibrationFrames(pictures(4), SPEC, "here").require(recipe)
    with pytest.raises(CalibrationError, match="found 3 frames, needed at least 4"):
        CalibrationFrames(pictures(3), SPEC, "here").require(recipe)


def test_no_frames_are_refused():
    with pytest.raises(CalibrationError, match="pictures:here: found 0 frames, needed at least 1"):
        CalibrationFrames.from_dataset(Pictures([]), 5, SPEC)
    with pytest.raises(CalibrationError, match="0 calibration frames asked for"):
        CalibrationFrames.from_dataset(Pictures(pictures(2)), 0, SPEC)


def nearly_constant() -> np.ndarray:
    image = np.full((40, 50, 3), 127, np.uint8)
    image[::2] += 1
    return image


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.full((40, 50, 3), 9, np.uint8), r"is of one colour \(its values deviate by 0.00 of 255"),
        (np.full((40, 50, 3), (1, 99, 200), np.uint8), "is of one colour"),
        (nearly_constant(), r"is of one colour \(its values deviate by 0.50"),
        (np.full((40, 50, 3), np.nan, np.float32), "is unfit and holds NaN: frame has dtype float32"),
        (np.zeros((40, 50, 3), np.float32), "is unfit: frame has dtype float32.*expected uint8"),
        (np.zeros((40, 50), np.uint8), r"is unfit: frame has shape \(40, 50\); expected uint8 of shape"),
        ("a.png", "is unfit: a frame is a numpy array, got str"),
    ],
)
def test_unfit_frames_are_refused_by_number(frame, message):
    good = pictures(4)
    assert len(CalibrationFrames(good, SPEC, "here")) == 4
    with pytest.raises(CalibrationError, match=f"here: frame 2 {message}"):
        CalibrationFrames([*good[:2], frame, good[3]], SPEC, "here")


def test_frames_that_are_all_the_same_are_refused():
    image, other = pictures(2)
    with pytest.raises(CalibrationError, match="its 3 frames are all the same"):
        CalibrationFrames([image, image.copy(), image], SPEC, "here")
    assert len(CalibrationFrames([image, image, other], SPEC, "here")) == 3
    assert len(CalibrationFrames([image], SPEC, "here")) == 1


def test_what_cannot_be_read_passes_through():
    with pytest.raises(DataError, match=r"7.png is damaged"):
        CalibrationFrames.from_dataset(Pictures(pictures(4), broken=3), 4, SPEC)


def test_frames_that_change_meanwhile_are_refused():
    images = pictures(2)
    frames = CalibrationFrames(images, SPEC, "here")
    assert len(list(frames)) == 2
    images[1] = images[1] ^ 1
    with pytest.raises(CalibrationError, match="frame 1 changed while it was in use"):
        list(frames)


def test_engines_that_take_whole_frames_are_fed_them():
    images = pictures(2)
    frames = CalibrationFrames(images, SPEC, "here")
    [image, _] = [feed["image"] for feed in frames.feeds(TensorSpec("image", (1, 3, 32, 64), "float32", "BCHW"))]
    np.testing.assert_array_equal(image, preprocess(images[0], SPEC))
    [frame, _] = [feed["frame"] for feed in frames.feeds(TensorSpec("frame", (40, 50, 3), "uint8", "HWC"))]
    np.testing.assert_array_equal(frame, images[0])


@pytest.mark.parametrize(
    "tensor", [TensorSpec("frame", (41, 50, 3), "uint8", "HWC"), TensorSpec("image", (1, 3, 64, 64), "float32", "BCHW")]
)
def test_engines_of_another_size_are_refused(tensor):
    frames = CalibrationFrames(pictures(2), SPEC, "here")
    with pytest.raises(CalibrationError, match=r"here: a frame becomes .* and the graph takes"):
        list(frames.feeds(tensor))


@pytest.fixture(scope="module")
def rooms_model():
    pytest.importorskip("cv2")
    return zoo.load_spec("emanet-rooms")


def test_the_zoo_model_calibrates_out_of_the_box(rooms_model):
    recipes = [load_recipe(target) for target in ("onnxruntime-int8", "openvino-int8", "trt-int8")]
    frames = CalibrationFrames.bundled(rooms_model, minimum=max(recipe.minimum for recipe in recipes))
    assert len(frames) == 32
    assert frames.description == "bundled:rooms"
    assert next(iter(frames)).shape == (1, 3, 288, 384)
    assert len(CalibrationFrames.bundled(rooms_model, count=8)) == 8


def test_the_bundle_is_small_and_neither_trains_nor_judges():
    folder = zoo.assets("calibration") / "frames" / "rooms"
    record = json.loads((folder / "frames.json").read_text("utf-8"))
    assert record["data"] == "rooms:seed=11,count=32,size=288x384 train"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.5e6


def test_models_of_other_data_have_no_bundle(rooms_model):
    with pytest.raises(CalibrationError, match=r"model 'emanet-nyuv2', trained on nyuv2 \(there are: rooms\); give"):
        CalibrationFrames.bundled(zoo.load_spec("emanet-nyuv2"))
    with pytest.raises(CalibrationError, match="which does not say what it was trained on"):
        CalibrationFrames.bundled(replace(rooms_model, data=""))


@pytest.mark.parametrize("damage", ["altered", "missing", "strange", "record"])
def test_a_damaged_bundle_is_refused(rooms_model, tmp_path, monkeypatch, damage):
    shutil.copytree(zoo.assets("calibration"), tmp_path / "calibration")
    monkeypatch.setattr(frames_module.zoo, "assets", lambda kind: tmp_path / kind)
    assert len(CalibrationFrames.bundled(rooms_model)) == 32
    folder = tmp_path / "calibration" / "frames" / "rooms"
    if damage == "altered":
        shutil.copy(folder / "01.jpg", folder / "00.jpg")
    elif damage == "missing":
        (folder / "00.jpg").unlink()
    elif damage == "strange":
        shutil.copy(folder / "01.jpg", folder / "mine.jpg")
    else:
        (folder / "frames.json").write_text("{}")
    with pytest.raises(CalibrationError, match=r"frames in .*rooms are not as shipped.*: install emadeploy again"):
        CalibrationFrames.bundled(rooms_model)
