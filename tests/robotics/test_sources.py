"""Frames from pictures, folders and videos, and every way in which there may be none."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.robotics.sources import Frame, Source, open_source

cv2 = pytest.importorskip("cv2")


def picture(path: Path, shade: int = 100, size: tuple[int, int] = (12, 16)) -> Path:
    """Write a picture of one colour: R = shade, G = 0, B = 255."""
    pixels_BGR = np.empty((*size, 3), np.uint8)
    pixels_BGR[:] = (255, 0, shade)
    assert cv2.imwrite(str(path), pixels_BGR)
    return path


def video(path: Path, frames: int) -> Path:
    """Write a video whose frames get lighter."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()
    return path


def names(source: Source) -> list[str]:
    return [frame.name for frame in source.frames()]


def test_a_picture_is_one_frame_in_rgb(tmp_path: Path) -> None:
    path = picture(tmp_path / "cup.png")
    os.utime(path, (1000.5, 1000.5))
    source = open_source(str(path))
    assert source.length == 1
    [frame] = source.frames()
    assert (frame.name, frame.stamp) == ("cup", 1000.5)
    assert (frame.pixels.shape, frame.pixels.dtype) == ((12, 16, 3), np.uint8)
    assert frame.pixels[0, 0].tolist() == [100, 0, 255]


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    for channels, name in ((1, "grey.png"), (4, "alpha.png")):
        cv2.imwrite(str(tmp_path / name), np.full((5, 6, channels), 77, np.uint8))
        [frame] = open_source(tmp_path / name).frames()
        assert frame.pixels.shape == (5, 6, 3)
        assert frame.pixels[0, 0].tolist() == [77, 77, 77]


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame9.png", "Frame1.jpg", "other.bmp"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._frame1.png").write_bytes(b"left by a file manager")
    (tmp_path / "folder.png").mkdir()
    source = open_source(tmp_path)
    assert source.length == 4
    assert names(source) == ["Frame1", "frame9", "frame10", "other"]


def test_pictures_of_one_stem_keep_apart(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        picture(tmp_path / name)
    assert names(open_source(tmp_path)) == ["a.jpg", "a.png", "b"]


def test_a_video_is_its_frames(tmp_path: Path) -> None:
    source = open_source(video(tmp_path / "drive.avi", 12))
    assert source.length == 12
    frames: list[Frame] = list(source.frames())
    assert len(frames) == 12
    assert frames[3].name == "drive_000003"
    assert [round(frame.stamp, 3) for frame in frames[:3]] == [0.0, 0.1, 0.2]
    assert frames[0].pixels.shape == (48, 64, 3)
    assert frames[11].pixels.mean() > frames[0].pixels.mean() + 50


@pytest.mark.parametrize("harm", ["empty", "truncated", "another kind"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_bad_picture_is_named_and_the_rest_still_read(tmp_path: Path, suffix: str, harm: str) -> None:
    good = picture(tmp_path / "1.png")
    bad = picture(tmp_path / f"2{suffix}", size=(200, 300))
    picture(tmp_path / "3.png")
    data = {"empty": b"", "truncated": bad.read_bytes()[:-400], "another kind": b"%PDF-1.7 ..."}[harm]
    bad.write_bytes(data)
    told: list[DataError] = []
    assert [frame.name for frame in open_source(tmp_path).frames(on_bad=told.append)] == ["1", "3"]
    assert len(told) == 1
    assert str(bad) in str(told[0])
    with pytest.raises(DataError, match=bad.name):
        list(open_source(tmp_path).frames())
    assert names(open_source(good)) == ["1"]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restarts", [0, 2])
def test_a_truncated_jpg_is_found_wherever_it_ends(tmp_path: Path, progressive: int, restarts: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    thumbnail = cv2.imencode(".jpg", pixels[:16, :16])[1].tobytes()
    data = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    # As cameras write it: a thumbnail, a whole jpg, in a segment before the picture; something of their own after it.
    segment = b"\xff\xe1" + (2 + len(thumbnail)).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    for whole in (data, data[:2] + segment + data[2:], data + b"\xff\xd8 trailer"):
        path.write_bytes(whole)
        assert names(open_source(path)) == ["a"]
    data = data[:2] + segment + data[2:]
    for length in range(20, len(data) - 1, 331):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a.jpg is damaged: a jpg without its end"):
            names(open_source(path))


def test_a_truncated_video_is_never_taken_for_a_short_one(tmp_path: Path) -> None:
    path = video(tmp_path / "drive.avi", 30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told: list[DataError] = []
    frames = list(open_source(path).frames(on_bad=told.append))
    assert 0 < len(frames) < 28
    assert f"drive.avi ends after {len(frames)} frames, its header says 30" in str(told[0])
    with pytest.raises(DataError, match="truncated"):
        list(open_source(path).frames())


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"drive.mp4 cannot be opened as a video"):
        open_source(tmp_path / "drive.mp4")


def test_what_holds_no_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no picture .* but no file"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no picture .* but 1 other files"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"notes.txt is neither a picture \(\.png .*\), a video \(\.mp4 "):
        open_source(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["drive.mcap", "drive.bag:/camera/image", "a.db3", "nowhere.mcap:/x"])
def test_bags_that_are_not_there(text: str) -> None:
    with pytest.raises(DataError, match=r"source (drive|a|nowhere)\.\w+ does not exist"):
        open_source(text)


def test_a_folder_that_is_a_bag_is_opened_as_one(tmp_path: Path) -> None:
    (tmp_path / "drive_0.db3").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be opened as a bag: .*; if its recording was cut off"):
        open_source(tmp_path)


def test_a_missing_opencv_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "cup.png")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendMissing, match=r"needs opencv, .*: pip install 'emadeploy\[robotics\]'"):
        open_source(path)
