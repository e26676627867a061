"""A checkpoint or an artifact, opened: what `eval` and `compare` do not need to tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.cli.options import requires
from emadeploy.contract.errors import ArtifactError
from emadeploy.contract.manifest import MANIFEST_NAME
from emadeploy.contract.outputs import decode
from emadeploy.contract.preprocess import preprocess
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.run import Predict

CHECKPOINT_NAME = "checkpoint.json"
_IN_FLOAT = (
    "fine-tuned for {0}: evaluated in float, without its rounding; what int8 gives is the accuracy of its artifact, "
    "emadeploy export --target {0}"
)


@dataclass(frozen=True)
class OpenNetwork:
    """A network that answers frames: ``predict`` takes uint8 (H, W, 3) RGB and returns decoded maps at H x W.

    ``notes``: what the reader of its accuracy must know.
    """

    spec: ModelSpec
    predict: Predict
    notes: tuple[str, ...] = ()


def open_network(path: Path) -> OpenNetwork:
    """Open the checkpoint or artifact in the folder ``path``; raises ArtifactError where it is neither."""
    if (path / MANIFEST_NAME).is_file():
        return _open_artifact(path)
    if (path / CHECKPOINT_NAME).is_file():
        return _open_checkpoint(path)
    what = "is neither a checkpoint nor an artifact" if path.is_dir() else "is not a folder"
    inside = [name for name in ("best", "last") if (path / name / CHECKPOINT_NAME).is_file()]
    hint = f"; did you mean {path / inside[0]}?" if inside else ""
    raise ArtifactError(f"{path} {what}; expected a folder with {CHECKPOINT_NAME} or {MANIFEST_NAME}{hint}")


def _open_artifact(path: Path) -> OpenNetwork:
    from emadeploy import runtime

    perception = runtime.load(path)
    return OpenNetwork(perception.spec, lambda frame: perception(frame).maps)


def _open_checkpoint(path: Path) -> OpenNetwork:
    with requires("a checkpoint", "train"):
        import torch

        from emadeploy import nets

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = nets.read_checkpoint(path)
    model = checkpoint.model().to(device).eval()
    learned = checkpoint.quantisation()
    notes = () if learned is None else (_IN_FLOAT.format(learned["target"]),)
    spec = model.spec

    def predict(frame: npt.NDArray[np.uint8]) -> Mapping[str, npt.NDArray[Any]]:
        image_B3HW = torch.from_numpy(preprocess(frame, spec.input)).to(device)
        with torch.inference_mode():
            raw = model.deploy(image_B3HW)
        return {task.name: decode(raw[task.name].cpu().numpy(), task, frame.shape[:2]) for task in spec.tasks}

    return OpenNetwork(spec, predict, notes)
