"""Every frame of a source through the runtime, and its maps onto disk."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from emadeploy.contract.errors import DataError, FrameError
from emadeploy.robotics.frame import Frame
from emadeploy.robotics.save import save_outputs
from emadeploy.robotics.sources import Source
from emadeploy.runtime import Runtime
from emadeploy.runtime.answers import Answer

#: The stages of a frame whose times are told; they overlap, so that frames come faster than their sum says.
STAGES = ("preprocess", "inference", "decode")


@dataclass
class Summary:
    """What became of a source: frames done, what was bad and why, milliseconds of every frame per stage and 'total'."""

    frames: int = 0
    bad: list[str] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median_ms(self) -> dict[str, float]:
        """The median of each stage over the frames."""
        return {stage: statistics.median(times) for stage, times in self.stages_ms.items()}


def process(
    perception: Runtime,
    source: Source,
    save: Path | None = None,
    *,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
    on_bad: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Run every frame of ``source`` and write its maps into the folder ``save``, if one is given.

    A frame that cannot be read, or that the artifact does not take, is told to ``on_bad``, kept in the summary and
    passed over. Raises DeviceError or ArtifactError where the engine fails, DataError where the disk refuses, and
    FrameError where no frame of the source can fit. ``on_frame`` is told how many of how many frames are behind. Of a
    live source frames may be dropped, and it goes on until it is lost or the program is interrupted.
    """
    summary = Summary()

    def note(error: DataError | FrameError, name: str = "") -> None:
        summary.bad.append(f"{name}: {error}" if name else str(error))
        on_bad(summary.bad[-1])

    for answer in perception.stream(source).answers():
        if isinstance(answer.error, FrameError) and not source.one_size:
            note(answer.error, _name_of(answer))
            continue
        if isinstance(answer.error, DataError):
            note(answer.error)
            continue
        outputs = answer.result()
        if save is not None:
            save_outputs(save, _name_of(answer), outputs, perception.spec.tasks)
        summary.frames += 1
        stages = {stage: outputs.timings[stage] for stage in STAGES}
        for stage, ms in {**stages, "total": sum(stages.values())}.items():
            summary.stages_ms.setdefault(stage, []).append(ms)
        on_frame(summary.frames + len(summary.bad), source.length)
    return summary


def _name_of(answer: Answer) -> str:
    assert isinstance(answer.frame, Frame), "a source of this package gives frames with names"
    return answer.frame.name
