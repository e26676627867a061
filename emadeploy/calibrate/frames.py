"""Calibration frames: real pictures, looked at before anything is traced, and preprocessed by the one preprocess."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy import zoo
from emadeploy.calibrate.recipe import Recipe
from emadeploy.contract.errors import CalibrationError, FrameError
from emadeploy.contract.manifest import file_digest
from emadeploy.contract.preprocess import Float32, UInt8, check_frame, preprocess
from emadeploy.contract.spec import InputSpec, ModelSpec, TensorSpec
from emadeploy.data.images import ImageFolder
from emadeploy.data.sample import Dataset

RECORD = "frames.json"
#: A frame whose channels all deviate by less than this from their means, in levels of 255, shows nothing.
LEAST_DEVIATION = 1.0
_REMEDY = "give frames such as the camera will see with --calib-data"


class CalibrationFrames:
    """Frames to calibrate with. Iterating gives the network's input for each, float32 (1, 3, height, width).

    ``frames`` is any sequence of uint8 (H, W, 3) RGB; it is read once here, to be checked, and again by every
    iteration, so that hundreds of frames need the memory of one. ``description`` names them in reports.

    Raises CalibrationError for fewer than ``minimum`` frames, a frame that is not uint8 (NaN among others) or shows
    one colour, and frames that are all the same. What ``frames`` itself raises passes through.
    """

    def __init__(self, frames: Sequence[UInt8], spec: InputSpec, description: str, *, minimum: int = 1) -> None:
        self.spec, self.description = spec, description
        self._frames = frames
        _check_number(len(frames), minimum, description)
        self._digests = [self._check(index, frames[index]) for index in range(len(frames))]
        if len(self._digests) > 1 and len(set(self._digests)) == 1:
            raise CalibrationError(f"{description}: its {len(self)} frames are all the same; {_REMEDY}")
        self.digest = self._digest()

    @classmethod
    def from_dataset(cls, dataset: Dataset, count: int, spec: InputSpec, *, minimum: int = 1) -> CalibrationFrames:
        """Return ``count`` frames spread evenly over ``dataset``, or all of them where it has fewer.

        Raises CalibrationError for unfit frames or fewer than ``minimum``, DataError where a frame cannot be read.
        """
        if count < 1:
            raise CalibrationError(f"{count} calibration frames asked for, expected at least {minimum}")
        found = min(count, len(dataset))
        indices = [index * len(dataset) // found for index in range(found)]
        return cls(_Chosen(dataset, indices), spec, dataset.description, minimum=minimum)

    @classmethod
    def bundled(cls, model: ModelSpec, *, count: int | None = None, minimum: int = 1) -> CalibrationFrames:
        """Return the frames shipped for models trained on the data of ``model``: all, or ``count`` of them.

        Raises CalibrationError where none are shipped for it, or they are not as they were shipped.
        """
        root = zoo.assets("calibration") / "frames"
        folder = root / model.data
        if not model.data or not (folder / RECORD).is_file():
            known = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{RECORD}")))
            trained_on = f"trained on {model.data}" if model.data else "which does not say what it was trained on"
            raise CalibrationError(
                f"no calibration frames are bundled for model {model.name!r}, {trained_on} "
                f"(there are: {known}); {_REMEDY}"
            )
        dataset = _read_bundle(folder)
        return cls.from_dataset(dataset, count or len(dataset), model.input, minimum=minimum)

    def __len__(self) -> int:
        return len(self._digests)

    def __iter__(self) -> Iterator[Float32]:
        return (preprocess(frame, self.spec) for frame in self.raw())

    def raw(self) -> Iterator[UInt8]:
        """Yield the frames, uint8 (H, W, 3); raises CalibrationError where one is no longer what was checked."""
        for index, digest in enumerate(self._digests):
            frame = self._frames[index]
            if _frame_digest(frame) != digest:
                raise CalibrationError(f"{self.description}: frame {index} changed while it was in use; start again")
            yield frame

    def feeds(self, tensor: TensorSpec) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield what an engine with the input ``tensor`` is fed, by name, frame by frame.

        Raises CalibrationError where it takes whole frames, of another size than these, or images of another size.
        """
        takes_frames = tensor.dtype == "uint8"
        for value in self.raw() if takes_frames else self:
            if value.shape != tensor.shape:
                raise CalibrationError(
                    f"{self.description}: a frame becomes {value.shape}, and the graph takes {tensor.shape}; "
                    + ("give frames of that size" if takes_frames else "make both with the same --size")
                )
            yield {tensor.name: value}

    def facts(self) -> dict[str, Any]:
        """Return 'data', 'count' and 'sha256', for the manifest."""
        return {"data": self.description, "count": len(self), "sha256": self.digest}

    def require(self, recipe: Recipe) -> None:
        """Raise CalibrationError where these are fewer than the recipe's minimum."""
        _check_number(len(self), recipe.minimum, self.description)

    def _check(self, index: int, frame: object) -> str:
        try:
            pixels = check_frame(frame)
        except FrameError as error:
            nan = " and holds NaN" if _holds_nan(frame) else ""
            raise CalibrationError(f"{self.description}: frame {index} is unfit{nan}: {error}") from None
        deviation = float(pixels.std(axis=(0, 1)).max())
        if deviation < LEAST_DEVIATION:
            raise CalibrationError(
                f"{self.description}: frame {index} is of one colour (its values deviate by {deviation:.2f} of 255, "
                f"expected at least {LEAST_DEVIATION:g}); {_REMEDY}"
            )
        return _frame_digest(pixels)

    def _digest(self) -> str:
        """Digest what the network is given: the frames, and how they are preprocessed."""
        sha = hashlib.sha256(json.dumps([self.spec.size, self.spec.mean, self.spec.std]).encode())
        for digest in self._digests:
            sha.update(digest.encode())
        return sha.hexdigest()


class _Chosen(Sequence[UInt8]):
    """Some images of a data set, read when they are asked for."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]].image


def _check_number(found: int, minimum: int, description: str) -> None:
    if found < minimum or not found:
        raise CalibrationError(f"{description}: found {found} frames, needed at least {max(minimum, 1)}; {_REMEDY}")


def _frame_digest(frame: UInt8) -> str:
    sha = hashlib.sha256(str(frame.shape).encode())
    sha.update(np.ascontiguousarray(frame))
    return sha.hexdigest()


def _holds_nan(frame: object) -> bool:
    return isinstance(frame, np.ndarray) and frame.dtype.kind == "f" and bool(np.isnan(frame).any())


def _read_bundle(folder: Path) -> Dataset:
    """Return the pictures of a shipped folder, once they are seen to be those of its record."""
    damaged = f"the bundled calibration frames in {folder} are not as shipped"
    try:
        record: Mapping[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files: Mapping[str, str] = record["files"]
        found = {name: file_digest(folder / name) for name in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"{damaged} ({type(error).__name__}: {error}): install emadeploy again") from None
    altered = [name for name in files if found[name] != files[name]]
    dataset = ImageFolder(folder)
    strange = sorted({path.name for path in dataset.paths} - set(files))
    if altered or strange:
        raise CalibrationError(f"{damaged} ({', '.join(altered + strange)}): install emadeploy again")
    dataset.description = f"bundled:{folder.name}"
    return dataset
