"""Rooms on disk: the layout, resuming, refusing."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("embreex")

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.data.rooms import cache, raycast, render_room, write_rooms

SIZE = {"height": 24, "width": 32}


@pytest.fixture
def rooms(tmp_path):
    return write_rooms(tmp_path / "rooms", seed=3, count=2, **SIZE)


def test_the_layout_is_that_of_the_preprocessed_nyuv2(rooms):
    frame = render_room(3, 1, 24, 32)
    loaded = {name: np.load(rooms / "train" / name / "1.npy") for name in ("image", "label", "depth", "normal", "edge")}
    shapes = {name: (array.shape, array.dtype.name) for name, array in loaded.items()}
    assert shapes == {
        "image": ((24, 32, 3), "float32"),
        "label": ((24, 32), "int16"),
        "depth": ((24, 32, 1), "float32"),
        "normal": ((24, 32, 3), "float32"),
        "edge": ((24, 32), "uint8"),
    }
    np.testing.assert_array_equal(loaded["image"], frame.image.astype(np.float32) / 255)
    np.testing.assert_array_equal(loaded["label"], frame.semseg)
    np.testing.assert_array_equal(loaded["depth"][..., 0], frame.depth)
    np.testing.assert_array_equal(loaded["normal"], frame.normals)
    np.testing.assert_array_equal(loaded["edge"], frame.edge)


def test_the_record_says_what_was_made(rooms):
    record = json.loads((rooms / "rooms.json").read_text())
    split = record["splits"]["train"]
    assert (split["seed"], split["count"], split["height"], split["width"]) == (3, 2, 24, 32)
    assert split["generator"] >= 1


def test_no_drafts_are_left(rooms):
    assert sorted(path.name for path in (rooms / "train" / "image").iterdir()) == ["0.npy", "1.npy"]


def test_finished_frames_are_not_rendered_again(rooms, monkeypatch):
    """As after an interruption in the middle of frame 1: one of its files is missing, and frame 2 was never begun."""
    kept = (rooms / "train" / "image" / "0.npy").stat().st_mtime_ns
    (rooms / "train" / "edge" / "1.npy").unlink()
    made, seen = [], []

    def counted(seed, index, *size):
        made.append(index)
        return render_room(seed, index, *size)

    monkeypatch.setattr(cache, "render_room", counted)
    write_rooms(rooms, seed=3, count=3, progress=lambda done, count: seen.append((done, count)), **SIZE)
    assert made == [1, 2]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (rooms / "train" / "image" / "0.npy").stat().st_mtime_ns == kept
    assert json.loads((rooms / "rooms.json").read_text())["splits"]["train"]["count"] == 3


def test_an_interruption_leaves_no_half_file(tmp_path, monkeypatch):
    def interrupted(file, arr):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_rooms(tmp_path / "rooms", seed=3, count=1, **SIZE)
    assert not [path for path in (tmp_path / "rooms" / "train").rglob("*") if path.is_file()]
    write_rooms(tmp_path / "rooms", seed=3, count=1, **SIZE)
    assert np.load(tmp_path / "rooms" / "train" / "image" / "0.npy").shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 4}, "seed 3"), ({"height": 48, "width": 64}, "height 24"), ({"width": 40}, "width 32")],
)
def test_a_directory_of_something_else_is_refused(rooms, change, word):
    with pytest.raises(DataError, match=word):
        write_rooms(rooms, **{"seed": 3, "count": 2, **SIZE, **change})


def test_another_generator_is_refused(rooms, monkeypatch):
    monkeypatch.setattr(cache, "GENERATOR_VERSION", cache.GENERATOR_VERSION + 1)
    with pytest.raises(DataError, match="generator"):
        write_rooms(rooms, seed=3, count=2, **SIZE)


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "train" / "image").mkdir(parents=True)
    with pytest.raises(DataError, match=r"rooms\.json"):
        write_rooms(tmp_path, seed=3, count=1, **SIZE)


def test_a_broken_record_is_refused(rooms):
    (rooms / "rooms.json").write_text("[")
    with pytest.raises(DataError, match="not a record of rooms"):
        write_rooms(rooms, seed=3, count=2, **SIZE)


def test_splits_live_side_by_side(rooms):
    write_rooms(rooms, seed=4, count=1, split="val", **SIZE)
    assert set(json.loads((rooms / "rooms.json").read_text())["splits"]) == {"train", "val"}
    assert (rooms / "val" / "image" / "0.npy").exists()


def test_processes_write_the_same_files(rooms, tmp_path):
    other = write_rooms(tmp_path / "other", seed=3, count=2, workers=2, **SIZE)
    for path in sorted((rooms / "train").rglob("*.npy")):
        assert path.read_bytes() == (other / path.relative_to(rooms)).read_bytes(), path.name


def test_without_embree_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    for ask in (raycast.require_embree, lambda: render_room(1, 0), lambda: write_rooms(tmp_path, seed=1, count=1)):
        with pytest.raises(
            BackendMissing, match=r"rooms need embreex: pip install 'emadeploy\[export\]', or \[train\]"
        ):
            ask()


def test_importing_needs_numpy_alone():
    code = (
        "import sys; import emadeploy.data.rooms;"
        "print(sorted({'trimesh', 'embreex', 'cv2', 'torch', 'PIL'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
