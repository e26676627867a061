"""What is wanted of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from emadeploy.export.stage import Wanted


@dataclass(frozen=True)
class Order:
    """What is wanted of an export.

    - ``target``: engine and precision, or its alias. ``output``: the folder; ``None``: ``NAME.TARGET`` here.
    - ``wanted``: form of CTAL, tasks, frame size. ``size``: image size; ``None``: the model's.
    - ``untrained``: random weights, for speed alone.
    - ``calib_data``: DATA to calibrate with; ``None``: the frames bundled for the model. ``calib_frames``: how many;
      ``None``: as the recipe says. ``recipe``: a yaml file in the place of the target's own.
    - ``max_drop``: budgets per task; ``None``: the recipe's; 'none': not judged. ``data``: DATA with truth to judge on;
      ``None``: made rooms for a model trained on them, else the held-out split of ``calib_data``.
    """

    target: str = "onnxruntime-fp32"
    output: Path | None = None
    wanted: Wanted = field(default_factory=Wanted)
    size: tuple[int, int] | None = None
    untrained: bool = False
    calib_data: str | None = None
    calib_frames: int | None = None
    recipe: Path | None = None
    max_drop: str | None = None
    data: str | None = None
