"""DATA: what it means, what it refuses, and the cache of rooms."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data import source
from emadeploy.data.source import (
    FOLDER_KINDS,
    FolderData,
    RoomsData,
    held_out,
    open_data,
    parse_data,
)

extents = st.integers(1, 60).map(lambda n: 32 * n)
rooms_data = st.builds(RoomsData, st.integers(0, 10**9 - 1), st.integers(1, 10**6), extents, extents)
folder_data = st.builds(FolderData, st.sampled_from(FOLDER_KINDS), st.text(min_size=1))


@given(rooms_data | folder_data)
def test_what_is_written_is_read_again(data):
    assert parse_data(str(data)) == data


@given(rooms_data, st.permutations(["seed", "count", "size"]), st.integers(0, 3))
def test_options_come_in_any_order_or_not_at_all(wanted, order, kept):
    values = {"seed": wanted.seed, "count": wanted.count, "size": f"{wanted.height}x{wanted.width}"}
    chosen = order[:kept]
    text = "rooms:" + ",".join(f"{key}={values[key]}" for key in chosen) if chosen else "rooms"
    parsed, default = parse_data(text), RoomsData()
    assert parsed == RoomsData(
        wanted.seed if "seed" in chosen else default.seed,
        wanted.count if "count" in chosen else default.count,
        *((wanted.height, wanted.width) if "size" in chosen else (default.height, default.width)),
    )


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        data = parse_data(text)
    except SpecError:
        return
    assert parse_data(str(data)) == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kitti:/data",
            r"'kitti' is unknown; known: rooms\[.*nyuv2:DIR, cityscapes:DIR, cityscapes-7:DIR, pascal-context:DIR, "
            "folder:DIR, images:DIR",
        ),
        ("", "'' is unknown"),
        ("nyuv2", "names no folder; expected nyuv2:DIR"),
        ("images:", "names no folder; expected images:DIR"),
        ("rooms:", "'' is not an option; known: seed=N, count=N, size=HxW"),
        ("rooms:seed=1,", "'' is not an option"),
        ("rooms:frames=3", "'frames=3' is not an option"),
        ("rooms:seed", "'seed' is not an option"),
        ("rooms:seed=1,seed=1", "seed is given twice"),
        ("rooms:seed=-1", "seed -1 is negative"),
        ("rooms:count=-4", "count -4 is not positive"),
        ("rooms:count=0", "count 0 is not positive"),
        ("rooms:count=1e3", "count '1e3' is not a whole number"),
        ("rooms:count=1_000", "count '1_000' is not a whole number"),
        ("rooms:count= 7", "count ' 7' is not a whole number"),
        ("rooms:count=\u0663", "is not a whole number"),
        ("rooms:seed=9999999999", "at most nine digits"),
        ("rooms:size=288", "size '288' is not HEIGHTxWIDTH"),
        ("rooms:size=288x384x3", "width '384x3' is not a whole number"),
        ("rooms:size=300x384", "size 300x384: height is not a positive multiple of 32"),
        ("rooms:size=288x100", "size 288x100: width is not a positive multiple of 32"),
        ("rooms:size=0x384", "height is not a positive multiple of 32"),
        ("rooms:size=-32x384", "height is not a positive multiple of 32"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(SpecError, match=message) as caught:
        parse_data(text)
    assert str(caught.value).startswith(f"data {text!r}")


def test_held_out_rooms_are_few_and_folders_stay():
    assert held_out("rooms:seed=1,count=2000,size=64x96") == "rooms:seed=1,count=64,size=64x96"
    assert held_out("rooms:count=8") == "rooms:seed=7,count=8,size=288x384"
    assert held_out("nyuv2:/data") == "nyuv2:/data"


def test_folders_are_opened_by_their_reader(tmp_path):
    with pytest.raises(DataError, match="has no folder train/"):
        open_data(f"nyuv2:{tmp_path}", split="train")
    with pytest.raises(DataError, match="holds no picture"):
        open_data(f"images:{tmp_path}")
    for kind, number in (("cityscapes", 19), ("cityscapes-7", 7)):
        (tmp_path / kind / "val").mkdir(parents=True)
        with pytest.raises(DataError, match=rf"image is not a folder; expected {{image,label_{number},depth}}"):
            open_data(f"{kind}:{tmp_path / kind}")
    with pytest.raises(DataError, match=r"ImageSets/Context/val.txt is not there"):
        open_data(f"pascal-context:{tmp_path}")
    with pytest.raises(DataError, match=r"dataset.yml is not there"):
        open_data(f"folder:{tmp_path}")
    with pytest.raises(SpecError, match="split 'test' is unknown"):
        open_data(f"images:{tmp_path}", split="test")


# --- the cache of rooms, with a renderer that writes flat frames


@pytest.fixture
def rendered(monkeypatch) -> list[tuple[str, int]]:
    """Replace the renderer; return the (split, count) of its calls."""
    calls: list[tuple[str, int]] = []

    def write_flat(directory: Path, *, seed, count, height, width, split, workers=1, progress=None) -> None:
        calls.append((split, count))
        for index in range(count):
            for name, shape in (("image", (3,)), ("label", ()), ("depth", ()), ("normal", (3,)), ("edge", ())):
                folder = directory / split / name
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{index}.npy", np.ones((height, width, *shape), np.uint8))
            if progress is not None:
                progress(index + 1, count)

    monkeypatch.setattr(source, "write_rooms", write_flat)
    return calls


def test_rooms_are_rendered_once_and_extended(tmp_path, rendered):
    def names(count: int, split: str = "val") -> list[str]:
        data = open_data(f"rooms:count={count},size=32x64", split=split, cache_dir=tmp_path)
        assert data.tasks == ("semseg", "depth", "normals", "edge")
        return [sample.name for sample in data]

    assert names(2) == ["0", "1"]
    assert names(2) == ["0", "1"]
    assert names(1) == ["0"]
    assert rendered == [("val", 2)]
    assert names(3) == ["0", "1", "2"]
    assert names(3, "train") == ["0", "1", "2"]
    assert rendered == [("val", 2), ("val", 3), ("train", 3)]


def test_other_seeds_and_sizes_are_other_rooms(tmp_path, rendered):
    for text in ("rooms:count=1,size=32x32", "rooms:count=1,size=32x64", "rooms:count=1,size=32x32,seed=8"):
        assert open_data(text, cache_dir=tmp_path)[0].image.shape[:2] == (32, 64 if "64" in text else 32)
    assert len(rendered) == 3


def test_a_rendering_that_was_killed_is_finished_later(tmp_path, rendered):
    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_data("rooms:count=2,size=32x32", cache_dir=tmp_path, progress=killed)
    assert len(open_data("rooms:count=2,size=32x32", cache_dir=tmp_path)) == 2
    assert rendered == [("val", 2)] * 2


def test_the_description_leads_back_to_the_data(tmp_path, rendered):
    data = open_data("rooms:size=32x32,count=1", cache_dir=tmp_path)
    assert data.description == "rooms:seed=7,count=1,size=32x32 val"


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch, rendered):
    monkeypatch.setenv("EMADEPLOY_CACHE", str(tmp_path / "cache"))
    open_data("rooms:count=1,size=32x32")
    assert (tmp_path / "cache" / "rooms").is_dir()


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path, rendered):
    (tmp_path / "rooms").write_text("a file in the way")
    with pytest.raises(DataError, match=r"rooms cannot be cached in .*EMADEPLOY_CACHE chooses the place"):
        open_data("rooms:count=1,size=32x32", cache_dir=tmp_path)


def test_rooms_of_the_two_splits_differ(tmp_path):
    pytest.importorskip("embreex")
    text = "rooms:seed=3,count=1,size=32x32"
    train, val = (open_data(text, split=split, cache_dir=tmp_path)[0] for split in ("train", "val"))
    assert np.mean(train.image != val.image) > 0.5
    # Opening them did not change what is there, nor what is made.
    np.testing.assert_array_equal(open_data(text, split="val", cache_dir=tmp_path)[0].image, val.image)
    assert {*train.truth} == {"semseg", "depth", "normals", "edge"}
