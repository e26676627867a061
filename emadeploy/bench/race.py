"""Engines measured side by side: each in a process of its own, a few calls of each in turn.

A process of its own makes peak memory a property of the engine. Taking turns makes the ratio of two engines hold on a
machine that is busy or throttles: what slows one round slows both.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emadeploy.bench.conditions import Conditions, conditions
from emadeploy.bench.entrants import Entrant
from emadeploy.bench.jetson.power import Span
from emadeploy.bench.jetson.watch import PowerWatch
from emadeploy.bench.process import Child
from emadeploy.bench.ratios import known, with_ratios
from emadeploy.bench.result import Rounds, result
from emadeploy.bench.rows import Row, Timings
from emadeploy.bench.stats import QUERIES
from emadeploy.bench.steady import WarmUp, warm_up
from emadeploy.contract.errors import SpecError

ROUNDS = 11

#: Called after each step with the number done and the number of all, which may grow.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Effort:
    """How long each engine runs: until it has had so many ``rounds``, calls and seconds, whichever comes last.

    - ``percentile``: 50, 90 or 99: as many calls as it needs (`stats.QUERIES`); ``None``: one per round.
    - ``min_time_s``: seconds of timed calls. ``warm_up``: calls before them; ``None``: until times are steady.
    - ``stream_s``: seconds of a stream, for its frames per second; 0: none.
    - ``block_s``: seconds that an engine runs before it is another's turn, where its calls are shorter.
    - ``within``: rounds go on, for ``most_s`` seconds at most, until every ratio is known to this share; ``None``: not.

    Raises SpecError for what makes no sense.
    """

    rounds: int = ROUNDS
    percentile: int | None = None
    min_time_s: float = 0.0
    warm_up: int | None = 2
    stream_s: float = 0.0
    block_s: float = 0.25
    within: float | None = None
    most_s: float = 60.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SpecError(f"{self.rounds} rounds are not positive")
        if self.percentile is not None and self.percentile not in QUERIES:
            raise SpecError(f"percentile {self.percentile} is unknown; known: {', '.join(map(str, QUERIES))}")

    @property
    def queries(self) -> int:
        """Calls of each engine, at least."""
        return self.rounds if self.percentile is None else max(self.rounds, QUERIES[self.percentile])


@dataclass(eq=False)
class _Runner:
    """An entrant at work."""

    entrant: Entrant
    child: Child
    warmed: WarmUp | None = None
    block: int = 1
    rounds: list[list[Timings]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    frames: int = 0
    stream_fps: float | None = None

    @property
    def live(self) -> bool:
        return self.child.trouble is None

    @property
    def calls(self) -> int:
        return sum(len(calls) for calls in self.rounds)

    @property
    def seconds(self) -> float:
        return sum(call["total"] for calls in self.rounds for call in calls) / 1e3


def race(
    entrants: Sequence[Entrant],
    effort: Effort,
    *,
    against: str | None = None,
    meter: PowerWatch | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Return the rows of ``entrants``, in order, with ratios to the row ``against``, by default the first.

    One whose process cannot load its artifact, or ends (killed, out of memory), has that as its ``status`` while the
    others go on. ``meter`` reads the power of the device meanwhile. Raises SpecError where no row is called
    ``against``, or two have the same name.
    """
    names = [each.row.name for each in entrants]
    if len(set(names)) < len(names):
        raise SpecError(f"two rows have one name: {', '.join(names)}")
    if against is not None and against not in names:
        raise SpecError(f"--against {against!r} is no row; the rows are {', '.join(names)}")
    if not entrants:
        return []
    steps = _Steps(len(entrants), effort.rounds, progress)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emadeploy-bench-")))
        runners = [_Runner(each, stack.enter_context(_child(each, folder, i))) for i, each in enumerate(entrants)]
        for runner in runners:
            # One after the other: a child that starts beside another would have half a machine.
            runner.child.start()
            _warm(runner, effort)
            steps.done(1)
        before = conditions(_pids(runners))
        reference = runners[names.index(against)] if against is not None else runners[0]
        _take_turns(runners, reference, effort, steps)
        after = conditions(_pids(runners))
        # Before the stream, whose frames in flight take more.
        memory = [runner.child.ask("memory") or {} for runner in runners]
        _stream(runners, effort)
        rows = [_row(runner, before, after, held, meter) for runner, held in zip(runners, memory, strict=True)]
    return with_ratios(rows, [runner.rounds for runner in runners], against)


def _child(entrant: Entrant, folder: Path, index: int) -> Child:
    frame = folder / f"{index}.npy"
    np.save(frame, entrant.frame)
    argv = [*entrant.argv, str(frame), str(entrant.row.threads), entrant.device or "auto"]
    return Child(argv, folder / f"{index}.stderr", entrant.trouble)


def _pids(runners: Sequence[_Runner]) -> list[int]:
    return [runner.child.pid for runner in runners if runner.child.pid is not None]


def _warm(runner: _Runner, effort: Effort) -> None:
    def run(calls: int) -> list[float] | None:
        timings = runner.child.run(calls)
        return None if timings is None else [call["total"] for call in timings]

    runner.warmed = warm_up(run, effort.warm_up) if runner.live else None
    if runner.warmed is None or runner.warmed.ms is None or (effort.percentile is None and not effort.min_time_s):
        return
    # As many calls per turn as make up the sum in the rounds that there are, and no longer turns than a drifting
    # machine allows; where those do not suffice there are more rounds.
    wanted = max(effort.queries, math.ceil(1e3 * effort.min_time_s / max(runner.warmed.ms, 1e-3)))
    fitting = max(1, int(1e3 * effort.block_s / max(runner.warmed.ms, 1e-3)))
    runner.block = max(1, min(fitting, math.ceil(wanted / effort.rounds)))


def _take_turns(runners: Sequence[_Runner], reference: _Runner, effort: Effort, steps: _Steps) -> None:
    index, started = 0, time.monotonic()
    while any(_wants(runner, effort, index) for runner in runners) or (
        time.monotonic() - started < effort.most_s and _unsure(runners, reference, effort)
    ):
        # Back and forth: whoever always comes second would always find the other's data in the caches.
        for runner in runners[:: 1 if index % 2 == 0 else -1]:
            if runner.live:
                _turn(runner)
        index += 1
        steps.done(len(runners))


def _wants(runner: _Runner, effort: Effort, rounds: int) -> bool:
    if not runner.live:
        return False
    return rounds < effort.rounds or runner.calls < effort.queries or runner.seconds < effort.min_time_s


def _unsure(runners: Sequence[_Runner], reference: _Runner, effort: Effort) -> bool:
    """Whether a ratio to ``reference`` is known less well than is wanted."""
    if effort.within is None or not reference.live:
        return False
    others = [runner for runner in runners if runner.live and runner is not reference]
    return any(not known(reference.rounds, runner.rounds, effort.within) for runner in others)


def _turn(runner: _Runner) -> None:
    # After another engine's turn the caches hold its weights: where calls follow each other, the first is not counted.
    settling = 1 if runner.block > 1 else 0
    started = time.perf_counter()
    timings = runner.child.run(runner.block + settling)
    if timings is not None:
        runner.rounds.append(timings[settling:])
        runner.spans.append((started, time.perf_counter()))
        runner.frames += len(timings)


def _stream(runners: Sequence[_Runner], effort: Effort) -> None:
    for runner in runners:
        if effort.stream_s > 0 and (answer := runner.child.ask(f"stream {effort.stream_s:g}")) is not None:
            runner.stream_fps = answer.get("fps")


def _row(
    runner: _Runner, before: Conditions, after: Conditions, memory: Mapping[str, Any], meter: PowerWatch | None
) -> Row:
    row = runner.entrant.row
    if runner.child.trouble is not None:
        return replace(row, status=runner.child.trouble)
    return result(
        row,
        Rounds(runner.rounds, runner.warmed, before, after),
        facts=runner.child.facts,
        memory=memory,
        cold_start_s=runner.child.cold_start_s,
        stream_fps=runner.stream_fps,
        power=None if meter is None else meter.over(runner.spans, runner.frames),
    )


class _Steps:
    """Tells how far a race is: a step for each start, and one for each engine's turn."""

    def __init__(self, runners: int, rounds: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, runners * (rounds + 1), progress

    def done(self, steps: int) -> None:
        self._done += steps
        self._total = max(self._total, self._done)
        if self._progress is not None:
            self._progress(self._done, self._total)
