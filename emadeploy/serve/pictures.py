"""JPEG and PNG in, npz and PNG out."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from emadeploy.contract.colour import colourise
from emadeploy.contract.spec import ModelSpec
from emadeploy.serve.faults import Fault
from emadeploy.serve.tensors import Array


def read_picture(body: bytes, pixels: int) -> Array:
    """Return the picture upright, as its EXIF says, in uint8 RGB (H, W, 3).

    Raises Fault 415 for another format or grey of 16 bits, 413 above ``pixels``, 400 where it is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own cap on pixels, above ours
            picture = Image.open(io.BytesIO(body), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError:
        raise Fault(413, f"the picture is far above {pixels} pixels: resize it") from None
    except Exception:
        raise Fault(415, "the body is neither a JPEG nor a PNG") from None
    if picture.width * picture.height > pixels:
        raise Fault(413, f"the picture is {picture.height} x {picture.width}, above {pixels} pixels: resize it")
    if picture.mode.startswith("I"):
        raise Fault(415, "the picture is grey in 16 bits, which would be clipped to 8: send 8 bits")
    try:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:  # Pillow raises many types for broken files
        raise Fault(400, f"the picture is broken: {str(error)[:120]}") from None


def write_npz(maps: Mapping[str, Array]) -> bytes | memoryview:
    """Return the maps as an npz, one array per task."""
    file = io.BytesIO()
    arrays: dict[str, Any] = dict(maps)
    np.savez(file, **arrays)
    return file.getbuffer()


def write_picture(maps: Mapping[str, Array], spec: ModelSpec, which: str) -> bytes:
    """Return a PNG of the map ``which``, or of 'all' side by side."""
    drawn = [colourise(maps[task.name], task) for task in spec.tasks if which in (task.name, "all")]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(drawn, axis=1)).save(file, "PNG", compress_level=1)
    return file.getvalue()
