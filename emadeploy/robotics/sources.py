"""Frames from a picture, a folder of pictures or a video, one after the other.

>>> source = open_source("frames/")                         # doctest: +SKIP
>>> for frame in source.frames():                           # doctest: +SKIP
...     result = perception(frame.pixels, stamp=frame.stamp)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emadeploy.contract.errors import BackendMissing, DataError, SpecError
from emadeploy.contract.preprocess import UInt8

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg")
_BAGS = (".bag", ".mcap", ".db3")
# A marker of a jpg that a length follows, or its end. In compressed data 0xFF is followed by 0x00 or a restart marker.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")

#: What becomes of a picture or a piece of video that cannot be read, while the rest goes on.
OnBad = Callable[[DataError], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: ``pixels`` uint8 (H, W, 3) RGB.

    ``name`` is unique in its source and fit for a file's name. ``stamp`` is in seconds: the time of the last change
    of a picture's file, the position in a video.
    """

    name: str
    pixels: UInt8
    stamp: float


class Source(Protocol):
    """Where frames come from."""

    @property
    def length(self) -> int | None:
        """The number of frames as far as it can be told beforehand; ``None`` where it cannot."""

    @property
    def one_size(self) -> bool:
        """Whether all frames have the size of the first."""

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield the frames in order. What cannot be read is handed to ``on_bad``, by default raised."""


def open_source(text: str | os.PathLike[str]) -> Source:
    """Return the source that ``text`` names: a picture, a folder of pictures or a video.

    Raises DataError where it is missing or holds no frame, SpecError for sorts that this version cannot read,
    BackendMissing where OpenCV is not installed.
    """
    path = Path(text)
    if re.match(r"camera:|rtsp://|https?://", str(text)) or _is_bag(str(text)):
        raise SpecError(
            f"source {str(text)!r}: cameras, streams and bags come with a later version of emadeploy; this one reads a "
            "picture, a folder of pictures or a video"
        )
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise DataError(f"source {path} does not exist")
    if path.suffix.lower() in PICTURES:
        return Pictures([path])
    if path.suffix.lower() in VIDEOS:
        return Video(path)
    raise DataError(
        f"source {path} is neither a picture ({' '.join(PICTURES)}), a video ({' '.join(VIDEOS)}) nor a folder"
    )


class Pictures:
    """Pictures in files, in the order given."""

    one_size = False

    def __init__(self, paths: Sequence[Path]) -> None:
        _cv2()
        self._paths = tuple(paths)
        # 'a.png' and 'a.jpg' would both be called 'a', and the results of one overwrite those of the other.
        stems = Counter(path.stem for path in paths)
        self._names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]

    @property
    def length(self) -> int:
        """The number of pictures, readable or not."""
        return len(self._paths)

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield every picture; see :class:`Source`."""
        for name, path in zip(self._names, self._paths, strict=True):
            try:
                frame = Frame(name, read_picture(path), path.stat().st_mtime)
            except DataError as error:
                _report(error, on_bad)
                continue
            yield frame


class Video:
    """A video file."""

    one_size = True

    def __init__(self, path: Path) -> None:
        cv2 = _cv2()
        self._path = path
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise DataError(f"{path} cannot be opened as a video: damaged, or of a codec that OpenCV lacks")
            self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()

    @property
    def length(self) -> int | None:
        """The number of frames that the file's header tells."""
        return self._count if self._count > 0 else None

    def frames(self, on_bad: OnBad | None = None) -> Iterator[Frame]:
        """Yield every frame; a video that ends before its header says is bad. See :class:`Source`."""
        cv2 = _cv2()
        capture = cv2.VideoCapture(str(self._path))
        count = 0
        try:
            while True:
                there, pixels_BGR = capture.read()
                if not there:
                    break
                pixels = cv2.cvtColor(pixels_BGR, cv2.COLOR_BGR2RGB)
                yield Frame(f"{self._path.stem}_{count:06d}", pixels, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                count += 1
        finally:
            capture.release()
        # Some containers derive the count from duration and rate: one or two frames off is no damage.
        if count == 0 or count < self._count - max(2, self._count // 100):
            error = DataError(f"{self._path} ends after {count} frames, its header says {self._count}: truncated")
            _report(error, on_bad)


def read_picture(path: Path) -> UInt8:
    """Return the picture in the file ``path``, upright, as uint8 (H, W, 3) RGB; raises DataError."""
    cv2 = _cv2()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not data:
        raise DataError(f"{path} is empty")
    if _is_truncated_jpeg(data):
        raise DataError(f"{path} is damaged: a jpg without its end")
    try:
        pixels_BGR = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"{path} is not a picture that OpenCV can read: {error.err}") from None
    if pixels_BGR is None:
        raise DataError(f"{path} is damaged, or not a picture that OpenCV can read")
    pixels: UInt8 = cv2.cvtColor(pixels_BGR, cv2.COLOR_BGR2RGB)
    return pixels


def _is_truncated_jpeg(data: bytes) -> bool:
    """Whether ``data`` is a jpg whose end is missing: OpenCV before 5 fills the rest with grey and says nothing.

    Goes from marker to marker (ISO/IEC 10918-1, B.1), for a thumbnail inside a segment has an end of its own.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position = 2
    while match := _MARKER.search(data, position):
        if data[match.start() + 1] == 0xD9:  # end of image
            return False
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return True


def _folder(path: Path) -> Pictures:
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"folder {path} cannot be read: {error.strerror}") from None
    pictures = [name for name in names if Path(name).suffix.lower() in PICTURES]
    if not pictures:
        held = f"{len(names)} other files" if names else "no file"
        raise DataError(f"folder {path} holds no picture ({' '.join(PICTURES)}) but {held}")
    return Pictures([path / name for name in sorted(pictures, key=_natural)])


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts '9.png' before '10.png'."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(piece), "") if piece[0] in "0123456789" else (-1, piece) for piece in pieces], name


def _is_bag(text: str) -> bool:
    """Whether ``text`` is BAG or BAG:/topic, a bag being a file or a folder of them."""
    file, _, topic = text.partition(":")
    if topic and not topic.startswith("/"):
        return False
    path = Path(file)
    suffixes = [path.suffix, *(p.suffix for p in path.iterdir())] if path.is_dir() else [path.suffix]
    return any(suffix.lower() in _BAGS for suffix in suffixes)


def _report(error: DataError, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise error
    on_bad(error)


def _cv2() -> Any:
    try:
        import cv2
    except ModuleNotFoundError:
        raise BackendMissing.of("reading pictures and video", "opencv", "robotics") from None
    return cv2
