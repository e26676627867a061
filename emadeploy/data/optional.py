"""Files that need a package of the extra ``data``: PNG with indices or 16 bits, MATLAB, yaml. Errors name the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import BackendMissing, DataError, first_line, one_line
from emadeploy.pictures import opencv

Array = npt.NDArray[Any]

_PNG = b"\x89PNG\r\n\x1a\n"


def read_png(path: Path) -> Array:
    """Return the numbers in a PNG file as they are: (H, W) of a palette's indices or of grey, (H, W, 3) of RGB.

    uint8 or uint16, bool of one bit. Raises DataError where the file cannot be read, or has an alpha channel or grey
    of 2 or 4 bits, whose values readers scale; BackendMissing without Pillow (16-bit colour: OpenCV).
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise BackendMissing.of("reading PNG files of labels", "pillow", "data") from None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not data.startswith(_PNG) or len(data) < 33:
        raise DataError(f"{path} is not a PNG file")
    bits, colour = data[24], data[25]  # of the header: ISO/IEC 15948, 11.2.2
    if colour in (4, 6):
        raise DataError(f"{path} has an alpha channel; save it without")
    if colour == 0 and bits in (2, 4):
        raise DataError(f"{path} has grey of {bits} bits; save it with 8 or 16")
    try:
        if colour == 2 and bits == 16:
            return _read_deep_colour(data)
        with Image.open(path) as picture:
            stored = np.array(picture)
    # Pillow's decoders raise SyntaxError for a broken chunk.
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is damaged: {first_line(error)}") from None
    return stored.astype(np.uint16) if stored.dtype == np.int32 else stored


def _read_deep_colour(data: bytes) -> Array:
    cv2 = opencv()
    pixels_BGR = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels_BGR is None:
        raise ValueError("OpenCV cannot decode it")
    return np.ascontiguousarray(pixels_BGR[:, :, ::-1])


def read_matlab(path: Path, *names: str) -> dict[str, Array]:
    """Return the variables ``names`` of a MATLAB file of version 5 to 7.

    Raises DataError where it cannot be read or lacks one, BackendMissing without scipy.
    """
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise BackendMissing.of("reading .mat files", "scipy", "data") from None
    if not path.is_file():
        raise DataError(f"{path} is not there")
    try:
        stored = loadmat(path, variable_names=names)
    except NotImplementedError:
        raise DataError(f"{path} is of MATLAB 7.3; save it with -v7") from None
    # A damaged file fails wherever the damage is, with whatever comes out of it.
    except Exception as error:
        raise DataError(f"{path} cannot be read as a MATLAB file: {first_line(error)}") from None
    missing = [name for name in names if name not in stored]
    if missing:
        raise DataError(f"{path} holds no {', '.join(missing)}")
    return {name: stored[name] for name in names}


def open_hdf5(path: Path) -> Any:
    """Return the open h5py.File (MATLAB 7.3 is HDF5); raises DataError, BackendMissing without h5py."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise BackendMissing.of("reading MATLAB 7.3 files", "h5py", "data") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} cannot be read as a MATLAB 7.3 file: {first_line(error)}") from None


def read_yaml(path: Path) -> Mapping[Any, Any]:
    """Return the mapping in a yaml file; raises DataError, BackendMissing without pyyaml."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise BackendMissing.of(f"reading {path.name}", "pyyaml", "data") from None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not yaml: {one_line(error)}") from None
    if not isinstance(data, Mapping):
        raise DataError(f"{path} is not a mapping but {type(data).__name__}")
    return data
