"""Camera images of ROS into pixels: ``Image`` in its usual encodings, ``CompressedImage`` as jpeg or png."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.preprocess import UInt8
from emadeploy.pictures import decode_picture, opencv

#: Encoding -> channels, bytes of each, and the conversion of OpenCV that makes it RGB ('' where it is).
_ENCODINGS: dict[str, tuple[int, int, str]] = {
    "rgb8": (3, 1, ""),
    "bgr8": (3, 1, "COLOR_BGR2RGB"),
    "8UC3": (3, 1, "COLOR_BGR2RGB"),  # what cv_bridge makes of an array of OpenCV that is given no encoding
    "rgba8": (4, 1, "COLOR_RGBA2RGB"),
    "bgra8": (4, 1, "COLOR_BGRA2RGB"),
    "rgb16": (3, 2, ""),
    "bgr16": (3, 2, "COLOR_BGR2RGB"),
    "mono8": (1, 1, "COLOR_GRAY2RGB"),
    "8UC1": (1, 1, "COLOR_GRAY2RGB"),
    "mono16": (1, 2, "COLOR_GRAY2RGB"),
    "yuv422": (2, 1, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, 1, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, 1, "COLOR_YUV2RGB_YUY2"),
    "yuyv": (2, 1, "COLOR_YUV2RGB_YUY2"),
    **{
        f"bayer_{pattern}{8 * size}": (1, size, f"COLOR_Bayer{pattern.upper()}2RGB")
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for size in (1, 2)
    },
}


def read_image(message: Any) -> UInt8:
    """Return uint8 (H, W, 3) RGB of an Image or a CompressedImage; of 16 bits the upper 8 are taken.

    Raises SpecError for an encoding or a format that is no camera image, which all messages of its topic will have, and
    DataError for one message whose data do not fit.
    """
    return _raw(message) if hasattr(message, "encoding") else _compressed(message)


def _raw(message: Any) -> UInt8:
    encoding, height, width = str(message.encoding), int(message.height), int(message.width)
    if encoding not in _ENCODINGS:
        raise SpecError(f"images in {encoding!r} are no camera images; known encodings: {', '.join(_ENCODINGS)}")
    channels, size, conversion = _ENCODINGS[encoding]
    data = np.frombuffer(message.data, np.uint8)
    row, step = width * channels * size, int(message.step)
    if not row or not height or step < row or data.size < step * (height - 1) + row:
        raise DataError(
            f"the message has {data.size} bytes in rows of {step}; expected {row} x {height} for {width} x {height} "
            f"pixels in {encoding!r}"
        )
    rows: npt.NDArray[np.uint8] = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    if size == 2:
        # The upper byte of each pair.
        rows = rows[:, (0 if message.is_bigendian else 1) :: 2]
    pixels = np.ascontiguousarray(rows).reshape(height, width, channels)
    if conversion:
        cv2 = opencv()
        pixels = cv2.cvtColor(pixels, getattr(cv2, conversion))
    return pixels


def _compressed(message: Any) -> UInt8:
    kind = str(message.format)
    if "compressedDepth" in kind:
        raise SpecError(f"messages in {kind!r} are depth, not camera images")
    return decode_picture(bytes(message.data), "the message")
