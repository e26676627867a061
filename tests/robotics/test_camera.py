"""Cameras: a real one over HTTP, and V4L2 devices by a stand-in for OpenCV's capture."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from emadeploy import load
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.robotics.camera import Camera
from emadeploy.robotics.sources import open_source

cv2 = pytest.importorskip("cv2")


class Server(ThreadingHTTPServer):
    """A network camera: motion JPEG; each connection is given ``frames`` frames, then cut."""

    daemon_threads = True
    frames = 40
    connections = 0
    stalls = False  # it keeps the connection then, and sends nothing more
    over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for index in range(self.server.frames):
                data = cv2.imencode(".jpg", np.full((48, 64, 3), (0, 0, 5 * index), np.uint8))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
            if self.server.stalls:
                self.server.over.wait()
        except OSError:
            pass  # the client has gone

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        made.over = threading.Event()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


def test_a_network_camera_gives_frames_until_it_is_lost(server: Server) -> None:
    source = open_source(f"http://user:secret@127.0.0.1:{server.server_port}/video.mjpg")
    assert (source.live, source.length, source.one_size) == (True, None, True)
    frames = []
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/video.mjpg gives no more frames: unplugged"):
        frames.extend(source.frames())
    assert len(frames) >= 30
    assert frames[0].pixels.shape == (48, 64, 3)
    red = [int(frame.pixels[0, 0, 0]) for frame in frames]
    assert red == sorted(red)
    assert red[-1] > 100
    assert all(frame.pixels[0, 0, 2] < 10 for frame in frames)
    assert [frame.stamp for frame in frames] == sorted(frame.stamp for frame in frames)
    names = [frame.name for frame in frames]
    assert "secret" not in names[0]
    # Opened again, it counts on.
    again = next(iter(source.frames()))
    assert again.name not in names


def test_a_network_camera_that_stalls_is_lost_and_opened_again(
    server: Server,
    make_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("onnxruntime")
    server.stalls = True
    monkeypatch.setattr("emadeploy.robotics.camera._TIMEOUT_MS", 500)
    monkeypatch.setattr("emadeploy.runtime.capture.FIRST_DELAY", 0.0)
    with load(make_artifact()) as perception:
        stream = perception.stream(f"http://127.0.0.1:{server.server_port}/video.mjpg")
        for _ in stream:
            if stream.stats.reconnects:
                break
    assert "gives no more frames: unplugged, out of reach" in caplog.text
    assert "attempt 1 of 10 to open it again" in caplog.text


def test_a_network_camera_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/x cannot be opened: nothing answers there"):
        open_source("http://127.0.0.1:9/x")


def test_devices_that_are_not_there() -> None:
    with pytest.raises(DataError, match=r"camera:/dev/video97 cannot be opened: there (is no camera|are camera:)"):
        open_source("camera:/dev/video97")
    with pytest.raises(DataError, match=r"gst:videotestsrc ! appsink cannot be opened: "):
        open_source("gst:videotestsrc ! appsink")
    for text in ("camera:", "camera:front", "camera:-1"):
        with pytest.raises(SpecError, match="expected a number or a device, such as camera:0"):
            open_source(text)


class FakeCapture:
    """OpenCV's capture of a device that gives two frames and is then unplugged."""

    opened: ClassVar[list[tuple[Any, ...]]] = []
    released: ClassVar[int] = 0

    def __init__(self, *args: Any) -> None:
        FakeCapture.opened.append(args)
        self.left = 2

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, key: int) -> float:
        return -1.0

    def set(self, key: int, value: float) -> bool:
        return False

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 6, 3), (1, 2, 3), np.uint8)

    def release(self) -> None:
        FakeCapture.released += 1


@pytest.fixture
def fake_capture(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    FakeCapture.opened, FakeCapture.released = [], 0
    return FakeCapture


def test_a_device_is_read_in_rgb_and_let_go(fake_capture: type[FakeCapture]) -> None:
    camera = open_source("camera:3")
    assert isinstance(camera, Camera)
    assert fake_capture.opened[0][:2] == (3, cv2.CAP_V4L2)
    assert fake_capture.released == 1
    frames = camera.frames()
    first = next(frames)
    assert (first.name, first.pixels[0, 0].tolist()) == ("camera_3_000000", [3, 2, 1])
    assert next(frames).name == "camera_3_000001"
    with pytest.raises(DataError, match="camera:3 gives no more frames"):
        next(frames)
    assert fake_capture.released == 2
    frames = camera.frames()
    assert next(frames).name == "camera_3_000002"
    frames.close()  # type: ignore[attr-defined]
    assert fake_capture.released == 3


def test_a_stream_by_its_text_survives_the_loss(
    server: Server, make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("emadeploy.runtime.capture.FIRST_DELAY", 0.0)
    with load(make_artifact()) as perception:
        stream = perception.stream(f"http://127.0.0.1:{server.server_port}/video.mjpg")
        stamps = []
        for result in stream:
            stamps.append(result.stamp)
            if stream.stats.reconnects >= 2:  # a busy machine may miss the moment
                break
    assert stamps == sorted(stamps)
    assert server.connections >= 3
    stats = stream.stats
    assert stats.captured == stats.answered + stats.dropped + stats.waiting
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("emadeploy")]


def test_a_folder_by_its_text_is_answered_whole(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((4, 6, 3), index, np.uint8))
    with load(make_artifact()) as perception:
        stream = perception.stream(folder)
        assert len(list(stream)) == 6
        assert stream.stats.dropped == 0
        with pytest.raises(DataError, match=r"nowhere\.mp4 does not exist"):
            perception.stream("nowhere.mp4")


def test_a_video_that_ends_too_early_is_answered_up_to_there(
    make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(30):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with load(make_artifact()) as perception:
        *good, last = perception.stream(path).answers()
        assert 0 < len(good) < 28
        assert all(answer.error is None for answer in good)
        assert f"ends after {len(good)} frames, its header says 30: truncated" in str(last.error)
        stamps = [result.stamp for result in perception.stream(path, on_error="skip")]
        assert [round(stamp, 3) for stamp in stamps] == [round(index / 10, 3) for index in range(len(good))]
        with pytest.raises(DataError, match="truncated"):
            list(perception.stream(path))
