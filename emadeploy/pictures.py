"""Pictures on disk, through OpenCV: what data sets of pictures and the sources of a robot's frames both read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.contract.preprocess import UInt8

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# A marker of a jpg that a length follows, or its end. In compressed data 0xFF is followed by 0x00 or a restart marker.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")


def opencv() -> Any:
    """Return the module cv2; raises BackendMissing where it is not installed."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise BackendMissing.of("reading pictures and video", "opencv", "robotics") from None
    return cv2


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder (not in folders inside it), numbers in names counting: '9.png' before '10.png'.

    Raises DataError where the folder cannot be read or holds no picture.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from None
    pictures = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not pictures:
        held = f"{len(names)} other files" if names else "no file"
        raise DataError(f"folder {folder} holds no picture ({' '.join(SUFFIXES)}) but {held}")
    return [folder / name for name in sorted(pictures, key=_natural)]


def read_picture(path: Path) -> UInt8:
    """Return the picture in the file ``path``, upright, as uint8 (H, W, 3) RGB; raises DataError."""
    opencv()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> UInt8:
    """Return the picture in ``data``, upright, as uint8 (H, W, 3) RGB; raises DataError, which calls it ``name``."""
    cv2 = opencv()
    if not data:
        raise DataError(f"{name} is empty")
    if _is_truncated_jpeg(data):
        raise DataError(f"{name} is damaged: a jpg without its end")
    try:
        pixels_BGR = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"{name} is not a picture that OpenCV can read: {error.err}") from None
    if pixels_BGR is None:
        raise DataError(f"{name} is damaged, or not a picture that OpenCV can read")
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


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(piece), "") if piece[0] in "0123456789" else (1, 0, piece) for piece in pieces], name
