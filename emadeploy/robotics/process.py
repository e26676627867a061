"""Every frame of a source through the runtime, and its maps wherever they are wanted."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Protocol

from emadeploy.contract.errors import DataError, FrameError
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.robotics.frame import Frame, Lost
from emadeploy.robotics.sources import Source
from emadeploy.runtime import Runtime
from emadeploy.runtime.answers import Answer

#: The stages of a frame whose times are told; they overlap, so that frames come faster than their sum says.
STAGES = ("preprocess", "inference", "decode")


class Sink(Protocol):
    """Where the maps of frames go: files, a recording, a viewer."""

    def write(self, frame: Frame, outputs: TaskOutputs) -> None:
        """Take the maps of one frame; raises DataError where it cannot."""

    def close(self, *, whole: bool) -> None:
        """Finish. ``whole``: the source came to its end; else an error ended it before."""


@dataclass
class Summary:
    """What became of a source: frames done, what was bad and why, milliseconds of every frame per stage and 'total'.

    ``lost``: frames that were bad; one message of ``bad`` may stand for many.
    """

    frames: int = 0
    lost: int = 0
    bad: list[str] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median_ms(self) -> dict[str, float]:
        """The median of each stage over the frames."""
        return {stage: statistics.median(times) for stage, times in self.stages_ms.items()}


def process(
    perception: Runtime,
    source: Source,
    sinks: Sequence[Sink] = (),
    *,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
    on_bad: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Run every frame of ``source`` and give its maps to the ``sinks``, which are closed at the end, whatever it is.

    A frame that cannot be read, or that the artifact does not take, is told to ``on_bad``, kept in the summary and
    passed over. Raises DeviceError or ArtifactError where the engine fails, DataError where a sink refuses, and
    FrameError where no frame of the source can fit. ``on_frame`` is told how many of how many frames are behind. Of a
    live source frames may be dropped, and it goes on until it is lost or the program is interrupted.
    """
    summary = Summary()
    writing = False

    def note(error: DataError | FrameError, name: str = "") -> None:
        summary.lost += error.frames if isinstance(error, Lost) else 1
        summary.bad.append(f"{name}: {error}" if name else str(error))
        on_bad(summary.bad[-1])

    def whole(ended_by: type[BaseException] | None) -> bool:
        # A live source has no end but the one that it is given; a sink that refuses is none.
        return ended_by is None or (source.live and (ended_by is KeyboardInterrupt or not writing))

    with ExitStack() as stack:
        for sink in sinks:
            stack.push(lambda kind, error, trace, sink=sink: sink.close(whole=whole(kind)))
        for answer in stack.enter_context(closing(perception.stream(source).answers())):
            if isinstance(answer.error, FrameError) and not source.one_size:
                note(answer.error, _frame_of(answer).name)
                continue
            if isinstance(answer.error, DataError):
                note(answer.error)
                continue
            outputs = answer.result()
            writing = True
            for sink in sinks:
                sink.write(_frame_of(answer), outputs)
            writing = False
            summary.frames += 1
            stages = {stage: outputs.timings[stage] for stage in STAGES}
            for stage, ms in {**stages, "total": sum(stages.values())}.items():
                summary.stages_ms.setdefault(stage, []).append(ms)
            on_frame(summary.frames + summary.lost, source.length)
    return summary


def _frame_of(answer: Answer) -> Frame:
    assert isinstance(answer.frame, Frame), "a source of this package gives frames with names"
    return answer.frame
