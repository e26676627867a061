"""Images out of recordings: every format, exact stamps, and what is damaged."""

import sys
from pathlib import Path

import bags
import numpy as np
import pytest

from emadeploy.contract.errors import BackendMissing, DataError, SpecError
from emadeploy.robotics.bag import Bag, split_bag
from emadeploy.robotics.frame import Lost
from emadeploy.robotics.sources import open_source

cv2 = pytest.importorskip("cv2")
AnyReader = pytest.importorskip("rosbags.highlevel").AnyReader


@pytest.mark.parametrize("kind", ["ros1", "ros2-mcap", "ros2-sqlite3", "mcap"])
def test_every_format_gives_the_same_frames(kind: str, tmp_path: Path) -> None:
    drive = bags.Drive()
    if kind == "ros1":
        path = bags.write_ros1(tmp_path / "drive.bag", drive)
    elif kind == "mcap":
        path = bags.write_mcap(tmp_path / "drive.mcap", drive)
    else:
        path = bags.write_ros2(tmp_path / "drive", drive, kind.partition("-")[2])
    source = open_source(f"{path}:{bags.TOPIC}")
    assert (source.length, source.live, source.one_size) == (4, False, True)
    assert str(source) == f"{path}:{bags.TOPIC}"
    frames = list(source.frames())
    assert [frame.name for frame in frames] == [f"drive_{index:06d}" for index in range(4)]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, drive.pixels(index))
        assert frame.header == drive.header(index)
        assert frame.stamp == pytest.approx(drive.header(index).stamp_ns / 1e9)
        assert frame.camera == bags.CAMERA
    # The only topic of images need not be named, and a source can be read again.
    assert [frame.header for frame in open_source(path).frames()] == [frame.header for frame in source.frames()]


def test_a_folder_whose_recording_never_ended_properly(tmp_path: Path) -> None:
    path = bags.write_ros2(tmp_path / "drive", bags.Drive())
    (path / "metadata.yaml").unlink()
    assert len(list(Bag(path).frames())) == 4
    (path / "other.db3").write_bytes(b"")
    with pytest.raises(DataError, match=r"drive has files of \.db3 and \.mcap; expected one bag"):
        Bag(path)


def test_topics_are_chosen_or_listed(tmp_path: Path) -> None:
    path = bags.write_mcap(tmp_path / "two.mcap", bags.Drive(count=1, topics=("/left/image", "/right/image")))
    listed = "its topics with images: /left/image, /right/image"
    with pytest.raises(DataError, match=f"has 2 topics with images; name one as .*two.mcap:/topic; {listed}"):
        Bag(path)
    with pytest.raises(DataError, match=f"two.mcap has no topic /front; {listed}"):
        Bag(path, "/front")
    with pytest.raises(DataError, match=f"{bags.INFO_TOPIC} holds sensor_msgs/msg/CameraInfo, no images; {listed}"):
        Bag(path, bags.INFO_TOPIC)
    # That CameraInfo is of another camera.
    assert next(iter(Bag(path, "/left/image").frames())).camera is None
    empty = bags.write_mcap(tmp_path / "none.mcap", bags.Drive(count=1, topics=()))
    with pytest.raises(DataError, match=r"has 0 topics with images; .*; it has no topic with images"):
        Bag(empty)


def test_packed_images_belong_to_the_camera_of_the_raw_ones(tmp_path: Path) -> None:
    drive = bags.Drive(count=1)
    data = cv2.imencode(".png", drive.pixels(0)[:, :, ::-1])[1].ravel()

    class Packed(bags.Drive):
        def messages(self):
            for topic, time, message in super().messages():
                if topic == bags.TOPIC:
                    fields = {"header": message.header, "format": "rgb8; png compressed bgr8", "data": data}
                    yield f"{topic}/compressed", time, self.types.make(bags.COMPRESSED, **fields)
                else:
                    yield topic, time, message

    frame = next(iter(Bag(bags.write_mcap(tmp_path / "packed.mcap", Packed(count=1))).frames()))
    np.testing.assert_array_equal(frame.pixels, drive.pixels(0))
    assert frame.camera == bags.CAMERA


def test_the_camera_of_rectified_images_is_the_rectified_one(tmp_path: Path) -> None:
    path = bags.write_mcap(tmp_path / "drive.mcap", bags.Drive(count=1, topics=("/camera/image_rect",)))
    camera = next(iter(Bag(path).frames())).camera
    assert camera is not None
    assert camera.intrinsics((bags.HEIGHT, bags.WIDTH)).fx == bags.CAMERA.p[0]


@pytest.mark.parametrize("compression", ["NONE", "ZSTD", "LZ4"])
def test_chunks_that_are_damaged_are_passed_over_and_counted(compression: str, tmp_path: Path) -> None:
    drive = bags.Drive(count=12)
    path = bags.write_mcap(tmp_path / "drive.mcap", drive, chunk=20_000, compression=compression)
    whole = [frame.header for frame in Bag(path).frames()]
    bags.spoil_chunks(path, 1)
    source = Bag(path)
    with pytest.raises(Lost, match="is damaged after"):
        list(source.frames())
    told: list[DataError] = []
    read = [frame.header for frame in source.frames(told.append)]
    lost = len(whole) - len(read)
    assert 0 < lost < 6
    # What is lost is lost in one place.
    first = next(index for index, header in enumerate(whole) if header not in read)
    assert read == whole[:first] + whole[first + lost :]
    assert len(told) == 1
    assert isinstance(told[0], Lost)
    assert told[0].frames == lost
    assert f"{lost} of its 12 images cannot be read" in str(told[0])


def test_damage_at_the_beginning_the_end_and_in_several_places(tmp_path: Path) -> None:
    drive = bags.Drive(count=40)
    path = bags.write_mcap(tmp_path / "drive.mcap", drive, chunk=20_000)
    bags.spoil_chunks(path, 0, 4, -1)
    told: list[DataError] = []
    read = list(Bag(path).frames(told.append))
    assert len(told) == 1
    assert isinstance(told[0], Lost)
    assert told[0].frames == 40 - len(read)
    assert str(told[0]).count("after ") == 3
    assert 20 < len(read) < 38


def test_damage_in_a_ros1_bag(tmp_path: Path) -> None:
    drive = bags.Drive(count=9)
    path = bags.write_ros1(tmp_path / "drive.bag", drive, chunk=20_000)
    with AnyReader([path]) as reader:
        position = list(reader.readers[0].chunks.values())[1].datapos
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"\xa5" * 64)
    told: list[DataError] = []
    read = [frame.header for frame in Bag(path).frames(told.append)]
    assert 0 < len(read) < 9
    assert len(told) == 1
    assert isinstance(told[0], Lost)
    assert told[0].frames == 9 - len(read)
    assert read[-1] == drive.header(8)


def test_one_message_that_makes_no_sense_is_one_bad_frame(tmp_path: Path) -> None:
    class Odd(bags.Drive):
        def messages(self):
            for index, (topic, time, message) in enumerate(super().messages()):
                if index == 2:
                    message.step = 7
                yield topic, time, message

    told: list[DataError] = []
    path = bags.write_mcap(tmp_path / "drive.mcap", Odd(camera=None))
    assert len(list(Bag(path).frames(told.append))) == 3
    assert len(told) == 1
    assert "drive.mcap:/camera/image_raw at 0.200 s: the message has 7200 bytes in rows of 7" in str(told[0])


def test_images_of_no_camera_end_it(tmp_path: Path) -> None:
    class Depth(bags.Drive):
        def messages(self):
            for topic, time, message in super().messages():
                message.encoding = "32FC1"
                yield topic, time, message

    path = bags.write_mcap(tmp_path / "drive.mcap", Depth(camera=None))
    with pytest.raises(SpecError, match=r"image_raw: images in '32FC1' are no camera images; known encodings: rgb8"):
        list(Bag(path).frames(lambda error: None))


def test_damage_that_sqlite_cannot_pass_over(tmp_path: Path) -> None:
    path = bags.write_ros2(tmp_path / "drive", bags.Drive(count=60), "sqlite3")
    (file,) = path.glob("*.db3")
    with file.open("r+b") as database:
        database.seek(file.stat().st_size // 2)
        database.write(b"\xa5" * 20_000)
    with pytest.raises(DataError, match=r"drive cannot be opened as a bag: .*malformed; .* or SQLite's '\.recover'"):
        Bag(path)


def test_a_missing_rosbags_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bags.write_mcap(tmp_path / "drive.mcap", bags.Drive(count=1))
    monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
    with pytest.raises(BackendMissing, match=r"reading bags needs rosbags, .*: pip install 'emadeploy\[robotics\]'"):
        open_source(path)


def test_what_is_no_bag(tmp_path: Path) -> None:
    assert split_bag("video.mp4") is None
    assert split_bag("rtsp://host/x") is None
    assert split_bag("a.mcap:/x/y") == (Path("a.mcap"), "/x/y")
    with pytest.raises(DataError, match=r"source a\.mcap does not exist"):
        open_source("a.mcap")
    (tmp_path / "a.mcap").write_bytes(b"nothing of the sort")
    with pytest.raises(DataError, match=r"a\.mcap cannot be opened as a bag: .*'mcap recover'"):
        open_source(tmp_path / "a.mcap")
