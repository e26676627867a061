"""A source through the runtime with every stage at work: while one frame is inferred, the next is made ready.

    source --captured--> preprocess --in the engine--> decode --answers--> for result in stream

Each arrow is a bounded :class:`~emadeploy.runtime.line.Line`, each stage a thread, so that frames stay in order and
memory does not grow. Of a file every frame is answered; of a live source the newest frame waits at each arrow, older
ones are dropped and counted, and the next is picked as late as :class:`~emadeploy.runtime.pace.Pace` allows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from emadeploy.contract.errors import SpecError, one_line
from emadeploy.contract.outputs import TaskOutputs
from emadeploy.contract.plain import one_of
from emadeploy.runtime.answers import STAGES, Answer, StreamStats, Tally
from emadeploy.runtime.capture import Capture, FrameSource, Timed
from emadeploy.runtime.line import Ended, Line
from emadeploy.runtime.pace import Eager, Pace
from emadeploy.runtime.queue import Answers, CalledSlot, InferQueue, Inputs, Job

log = logging.getLogger(__name__)

DROPS = ("oldest", "none")
ON_ERROR = ("raise", "skip")
#: One frame is in the engine and one ready for it: more would only wait.
IN_ENGINE = 2
#: Frames between two other stages, where none may be dropped.
WAITING = 2
#: Seconds that closing waits for a source that does not answer; its thread then ends when it does.
GRACE = 2.0
#: An answer that comes within these seconds had been there before.
_NO_WAIT = 1e-4


@dataclass(frozen=True)
class Stages:
    """What a runtime does with a frame. ``check_open`` raises where the runtime is closed."""

    check_open: Callable[[], object]
    preprocess: Callable[[Any], Inputs]
    open_queue: Callable[[], InferQueue] | None
    run: Callable[[Inputs], Answers]
    decode: Callable[[Answers, tuple[int, int]], Mapping[str, Any]]


class Stream:
    """The answers of a source, in order; made by :meth:`emadeploy.Runtime.stream`, which says how it behaves.

    It begins with the loop and ends with it, also by ``break``, an exception or Ctrl-C: no thread is left then.
    """

    def __init__(
        self, stages: Stages, source: FrameSource, *, drop: str | None = None, on_error: str = "raise"
    ) -> None:
        drop = drop or ("oldest" if source.live else "none")
        one_of("drop", drop, DROPS)
        one_of("on_error", on_error, ON_ERROR)
        self._stages = stages
        self._on_error = on_error
        self._stop = threading.Event()
        self._tally = Tally()
        self._claimed = False
        self._capture = Capture(source, self._stop.wait, lambda: self._tally.count("reconnects"))
        newest = _is_frame if drop == "oldest" else None
        room = WAITING if newest is None else 1
        self._captured: Line[_Work] = Line(room, may_drop=newest)
        self._inferring: Line[_Work] = Line(IN_ENGINE + 1)
        self._answers: Line[_Work] = Line(room, may_drop=newest)
        self._pace = Eager() if newest is None else Pace()
        self._engine = ExitStack()
        self._threads: list[threading.Thread] = []

    @property
    def stats(self) -> StreamStats:
        """What became of the frames so far; a snapshot, from any thread, also after the end."""
        return self._tally.stats()

    def __iter__(self) -> Generator[TaskOutputs, None, None]:
        """Yield the maps of every frame; one that fails raises its error here or, with 'skip', is logged and counted.

        Raises whatever ended the source before its end, and ArtifactError where the runtime is closed meanwhile.
        """
        answers = self.answers()
        try:
            for answer in answers:
                if answer.error is None or self._on_error == "raise":
                    yield answer.result()
                else:
                    self._say_skipped(answer.error)
        finally:
            answers.close()

    def answers(self) -> Generator[Answer, None, None]:
        """Yield every frame with its maps, or with its error, after which the stream goes on whatever ``on_error``.

        Raises as iterating does, but not for a frame.
        """
        self._claim()
        try:
            self._start()
            while True:
                try:
                    work = self._answers.take()
                except Ended:
                    return
                if work.fatal is not None:
                    raise work.fatal
                self._tally.count("answered" if work.answer.error is None else "failed")
                yield work.answer
        finally:
            self.close()

    def close(self) -> None:
        """End the stream: what is in the engine is waited for, everything else let go. Closing twice is allowed.

        A source that does not answer is waited for a few seconds, then left to itself, which is logged.
        """
        self._stop.set()
        for end in (self._captured, self._inferring, self._answers, self._pace):
            end.stop()
        for thread in self._threads[1:]:
            thread.join()
        self._engine.close()
        for thread in self._threads[:1]:
            thread.join(GRACE)
            if thread.is_alive():
                log.warning("the source has not answered for %g s: its thread will end when it does", GRACE)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self) -> None:
        if self._claimed or self._stop.is_set():
            raise SpecError("this stream has been iterated or closed already: make another with perception.stream(...)")
        self._claimed = True

    def _start(self) -> None:
        queue = self._open_queue()
        for stage, line in (
            (self._capture_all, self._captured),
            (lambda: self._preprocess_all(queue), self._inferring),
            (self._decode_all, self._answers),
        ):
            self._threads.append(
                threading.Thread(target=self._run, args=(stage, line), name="emadeploy-stream", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def _open_queue(self) -> InferQueue:
        self._stages.check_open()
        if self._stages.open_queue is not None:
            return self._engine.enter_context(self._stages.open_queue())
        worker = self._engine.enter_context(ThreadPoolExecutor(1, "emadeploy-infer"))
        return self._engine.enter_context(InferQueue(lambda: CalledSlot(worker, self._stages.run), IN_ENGINE))

    def _run(self, stage: Callable[[], None], line: Line[_Work]) -> None:
        """Run a stage to its end, which is that of the line after it; what breaks it comes out of the stream."""
        try:
            stage()
        except Ended:
            pass
        except BaseException as error:
            with suppress(Ended):
                self._hand_on(_Work(Answer(None), fatal=error), line)
        finally:
            line.end()

    def _capture_all(self) -> None:
        frames = self._capture.frames()
        try:
            while not self._stop.is_set():
                start = time.perf_counter()
                captured = next(frames, None)
                seconds = time.perf_counter() - start
                if captured is None:
                    return
                self._tally.count("captured")
                self._tally.work("capture", seconds)
                answer = Answer(None, error=captured) if isinstance(captured, Exception) else Answer(captured)
                self._hand_on(_Work(answer, ms={"capture": 1e3 * seconds}), self._captured)
        finally:
            frames.close()

    def _preprocess_all(self, queue: InferQueue) -> None:
        while True:
            self._pace.wait_to_pick()
            work = self._captured.take()
            self._stages.check_open()
            if work.answer.frame is not None:
                self._preprocess(work, work.answer.frame, queue)
            self._inferring.put(work)

    def _preprocess(self, work: _Work, frame: Timed, queue: InferQueue) -> None:
        start = time.perf_counter()
        try:
            inputs = self._stages.preprocess(frame.pixels)
            self._note(work, "preprocess", time.perf_counter() - start)
            work.job = queue.submit(inputs)
        except Exception as error:
            work.answer.error = error
        work.entered = time.perf_counter()
        self._pace.enter()

    def _decode_all(self) -> None:
        engine_free = 0.0
        while True:
            work = self._inferring.take()
            answers: Answers = {}
            if work.job is not None:
                asked = time.perf_counter()
                try:
                    answers = work.job.result()
                except Exception as error:
                    work.answer.error = error
                now = time.perf_counter()
                # The engine takes frames one after the other: this one's time begins where the last one's ended. One
                # that was done before it was asked for tells the pace nothing: that was the time of decoding.
                self._note(work, "inference", now - max(work.entered, engine_free), tell=now - asked > _NO_WAIT)
                engine_free = now
            self._pace.collect()
            if work.job is not None and work.answer.error is None:
                self._decode(work, answers)
            self._hand_on(work, self._answers)

    def _decode(self, work: _Work, answers: Answers) -> None:
        frame = work.answer.frame
        assert frame is not None
        start = time.perf_counter()
        try:
            maps = self._stages.decode(answers, frame.pixels.shape[:2])
        except Exception as error:
            work.answer.error = error
            return
        now = time.perf_counter()
        self._note(work, "decode", now - start)
        work.ms["wait"] = 1e3 * (now - work.captured) - sum(work.ms[stage] for stage in STAGES[1:])
        work.answer.outputs = TaskOutputs(frame.stamp, timings=work.ms, **maps)

    def _note(self, work: _Work, stage: str, seconds: float, *, tell: bool = True) -> None:
        work.ms[stage] = 1e3 * seconds
        self._tally.work(stage, seconds)
        if tell:
            self._pace.learn(stage, seconds)

    def _hand_on(self, work: _Work, line: Line[_Work]) -> None:
        if line.put(work) is not None:
            self._tally.count("dropped")

    def _say_skipped(self, error: BaseException) -> None:
        failed = self.stats.failed
        if failed & (failed - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: a camera may fail thirty times a second
            log.warning("frame skipped, %d so far: %s", failed, one_line(error))


@dataclass(eq=False)
class _Work:
    """A frame on its way: when it was ``captured`` and ``entered`` the engine. ``fatal`` is what ends the stream."""

    answer: Answer
    captured: float = field(default_factory=time.perf_counter)
    entered: float = 0.0
    job: Job | None = None
    ms: dict[str, float] = field(default_factory=dict)
    fatal: BaseException | None = None


def _is_frame(work: _Work) -> bool:
    """Whether work may be dropped for newer: errors are never lost, they wait until they are seen."""
    return work.fatal is None and work.answer.error is None
