"""Sample predictions, for people: per validation one picture, a row for each of its first frames.

From left to right the frame, then the truth and the prediction of every task. Black is where there is no truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from emadeploy.contract.colour import colourise
from emadeploy.contract.drawing import png
from emadeploy.contract.preprocess import UInt8
from emadeploy.contract.spec import ModelSpec, TaskSpec

FOLDER = "pictures"
#: Pixels between two pictures.
_GAP = 4


class Shown(NamedTuple):
    """A frame that was validated: the network's input (3, H, W), truth and decoded maps by task."""

    name: str
    image: npt.NDArray[np.float32]
    truth: Mapping[str, npt.NDArray[Any]]
    decoded: Mapping[str, npt.NDArray[Any]]


class Pictures(Callback):
    """Writes `pictures/step-00000120.png` into the run's folder, and into TensorBoard, after each validation."""

    def __init__(self, output: Path, spec: ModelSpec) -> None:
        self.output, self.spec = output, spec

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw what the first process has seen."""
        shown: Sequence[Shown] = module.shown
        if not trainer.is_global_zero or not shown:
            return
        sheet = contact_sheet(shown, self.spec)
        folder = self.output / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"step-{module.global_step:08d}.png").write_bytes(png(sheet))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("predictions", sheet, module.global_step, dataformats="HWC")


def contact_sheet(shown: Sequence[Shown], spec: ModelSpec) -> UInt8:
    """Return one picture (rows, columns, 3) of all frames."""
    rows = [np.hstack([_with_gap(picture) for picture in _row(frame, spec)]) for frame in shown]
    sheet: UInt8 = np.vstack(rows)
    return sheet


def _row(frame: Shown, spec: ModelSpec) -> list[UInt8]:
    std, mean = (np.asarray(values, np.float32)[:, None, None] for values in (spec.input.std, spec.input.mean))
    image_3HW = (frame.image * std + mean).clip(0, 1) * 255
    pictures: list[UInt8] = [np.rint(image_3HW).astype(np.uint8).transpose(1, 2, 0)]
    for task in spec.tasks:
        truth, decoded = frame.truth.get(task.name), frame.decoded[task.name]
        # Truth and prediction share their colours: what differs between them is the network's error.
        scale = _depth_range(decoded if truth is None else truth, task)
        pictures.append(np.zeros_like(pictures[0]) if truth is None else _of_truth(truth, task, scale))
        pictures.append(colourise(decoded, task, scale))
    return pictures


def _of_truth(truth: npt.NDArray[Any], task: TaskSpec, scale: tuple[float, float] | None) -> UInt8:
    picture = colourise(truth, task, scale)
    if task.kind in ("edge", "saliency"):
        picture[truth == 255] = 0
    return picture


def _depth_range(depth_HW: npt.NDArray[Any], task: TaskSpec) -> tuple[float, float] | None:
    if task.kind != "depth" or not (depth_HW > 0).any():
        return None
    low, high = np.percentile(depth_HW[depth_HW > 0], (2, 98)).tolist()
    return low, high


def _with_gap(picture: UInt8) -> UInt8:
    padded: UInt8 = np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    return padded
