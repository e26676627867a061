"""The runtime: an artifact becomes one call, ``perception(frame)``, which answers every task for that frame."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.contract.errors import ArtifactError, FrameError, SpecError
from emadeploy.contract.manifest import Manifest
from emadeploy.contract.outputs import TaskOutputs, decode
from emadeploy.contract.preprocess import UInt8, check_frame, preprocess, to_rgb
from emadeploy.contract.spec import ModelSpec
from emadeploy.runtime.backends import opener
from emadeploy.runtime.capture import as_source
from emadeploy.runtime.machine import usable_cores
from emadeploy.runtime.session import Array, Session, check_manifest
from emadeploy.runtime.stream import Stages, Stream


def load(
    artifact: str | os.PathLike[str],
    *,
    device: str | None = None,
    threads: int | None = None,
    warm_up: bool = True,
) -> Runtime:
    """Load the artifact in the folder ``artifact`` on the engine that its manifest names.

    ``device`` is where it runs ('cpu'); ``None`` is the engine's usual one, and what is asked for and absent is an
    error. ``threads`` is for engines on a CPU, by default one per physical core that this process may use. Unless
    ``warm_up`` is false one black frame runs, so that the first real one is not slower than the rest.

    Every file is compared with its digest before any is loaded. Raises ArtifactError (incomplete, altered, foreign),
    BackendMissing (the engine's package is not installed) and DeviceError.
    """
    if threads is not None and threads < 1:
        raise SpecError(f"threads {threads} is not positive")
    directory = Path(artifact)
    manifest = Manifest.read(directory)
    check_manifest(manifest)
    open_session = opener(manifest.engine)
    manifest.verify_files(directory)
    session = open_session(directory, manifest, threads=threads or usable_cores(), device=device)
    runtime = Runtime(manifest, session)
    if warm_up:
        runtime(np.zeros((*(manifest.frame_size or manifest.model.input.size), 3), np.uint8))
    return runtime


def prepare(manifest: Manifest, frame: UInt8, order: str = "rgb") -> Mapping[str, Array]:
    """Return the inputs of the graph of ``manifest`` for a frame, uint8 (H, W, 3); raises FrameError as a call does."""
    wanted = manifest.frame_size
    if wanted is None:
        return {"image": preprocess(frame, manifest.model.input, order)}
    if check_frame(frame).shape[:2] != wanted:
        height, width = frame.shape[:2]
        raise FrameError(
            f"frame is {height} x {width} (height x width); the artifact was exported for frames of {wanted[0]} x "
            f"{wanted[1]}: resize it, or export with --frame-size {height}x{width}, or without one for any size"
        )
    return {"frame": np.ascontiguousarray(to_rgb(frame, order))}


class Runtime:
    """A loaded artifact. Call it with a frame; use it in a ``with`` block, or :meth:`close` it.

    Any number of threads may call one Runtime: the engine takes one frame at a time, while other threads preprocess
    and decode theirs.
    """

    def __init__(self, manifest: Manifest, session: Session) -> None:
        self.manifest = manifest
        self._session: Session | None = session
        self._lock = threading.Lock()

    @property
    def spec(self) -> ModelSpec:
        """The model: its tasks with their units and classes, its input size."""
        return self.manifest.model

    def __call__(self, frame: UInt8, *, order: str = "rgb", stamp: float | None = None) -> TaskOutputs:
        """Return every map of ``frame``, uint8 (H, W, 3), at the frame's own size.

        ``order`` is 'rgb' or 'bgr' (OpenCV). ``stamp`` is the capture time in seconds, by default now. ``timings``
        of the result holds milliseconds for 'preprocess', 'inference' (with the wait for other threads' frames) and
        'decode'. An artifact exported with a frame size takes frames of that size alone.

        Raises FrameError for another type, shape or order, ArtifactError where the engine answers values that are
        not finite, DeviceError where it fails.
        """
        if stamp is None:
            stamp = time.time()
        started = time.perf_counter()
        inputs = self._inputs(frame, order)
        prepared = time.perf_counter()
        answers = self._infer(inputs)
        inferred = time.perf_counter()
        maps = self._decoded(answers, frame.shape[:2])
        decoded = time.perf_counter()
        timings = {
            "preprocess": 1e3 * (prepared - started),
            "inference": 1e3 * (inferred - prepared),
            "decode": 1e3 * (decoded - inferred),
        }
        return TaskOutputs(stamp, timings=timings, **maps)

    def stream(self, source: object, *, drop: str | None = None, order: str = "rgb", on_error: str = "raise") -> Stream:
        """Return the answers of ``source``, in order, while capture, preprocessing, inference and decoding overlap.

        >>> for result in perception.stream("camera:0"):                    # doctest: +SKIP
        ...     steer(result.depth, result.stamp)

        ``source`` is an iterable of frames or of (stamp, frame), a source of :mod:`emadeploy.robotics.sources`, or
        the text that names one: a file, a folder, 'camera:0', 'rtsp://...'. A frame must not change once it is given.

        ``drop`` is 'oldest', the default for live sources: the newest frame waits, older ones are dropped and counted,
        and results are never older than about two inference times however slow the loop is; or 'none', the default
        for all others: every frame is answered, and a slow loop makes the source wait.

        ``on_error`` is 'raise': a frame that fails raises its error in its turn, after the results before it, and so
        ends the loop; or 'skip': it is logged, counted, and the loop goes on. `Stream.answers` gives frames, results
        and errors side by side. A live source that is lost is opened again for half a minute, which is logged.

        ``timings`` of each result holds milliseconds for 'capture' (with the wait for the camera), the stages of a
        call, and the 'wait' between them: all but 'capture' add up to its age. ``stats`` of the stream counts frames.

        Leaving the loop in any way ends the stream and its threads. Raises SpecError for a source, ``drop`` or
        ``on_error`` that makes no sense, ArtifactError after :meth:`close`, and whatever opening the source raises.
        """
        opened = as_source(source, order)
        stages = Stages(
            check_open=self._open_session,
            preprocess=lambda frame: self._inputs(frame, order),
            open_queue=getattr(self._open_session(), "queue", None),
            run=self._infer,
            decode=self._decoded,
        )
        return Stream(stages, opened, drop=drop, on_error=on_error)

    def raw(self, frame: UInt8, *, order: str = "rgb") -> dict[str, Array]:
        """Return what the engine answers for ``frame``, by task name, before any decoding: for parity and study.

        float32 (1, C, h, w) per task; for an artifact with a frame size, the decoded maps. Raises as a call does.
        """
        return dict(self._infer(self._inputs(frame, order)))

    def infer(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the engine answers for ``tensors``, the graph's own inputs by name: for servers and for study.

        They are as ``manifest.inputs`` says: 'image', float32 (1, 3, H, W), normalised as in
        :mod:`emadeploy.contract.preprocess`; with a frame size 'frame', uint8 (H, W, 3), RGB. The answers are those of
        :meth:`raw`, and the caller's. Raises FrameError for other names, shapes, types or values that are not finite,
        and ArtifactError and DeviceError as a call does.
        """
        wanted = {spec.name: (spec.dtype, tuple(spec.shape)) for spec in self.manifest.inputs}
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        given = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        if given != wanted:
            raise FrameError(f"tensors are {_listed(given)}; the graph of {self.spec.name!r} takes {_listed(wanted)}")
        for name, array in arrays.items():
            if not _is_finite(array):
                raise FrameError(f"tensor {name!r} holds values that are not finite")
        answers = self._infer(arrays)
        _check_finite(answers)
        return dict(answers)

    def describe(self) -> dict[str, str | int]:
        """Return the target, and the engine's name, version, device and threads."""
        return {"target": self.manifest.target, **self._open_session().describe()}

    def copies(self) -> dict[str, float]:
        """Return what of 'inference' are copies to a device and back: 'copy_in' and 'copy_out', in milliseconds.

        Measured now. Empty where the engine runs on the CPU, which copies nothing.
        """
        copies = getattr(self._open_session(), "copies", None)
        return {} if copies is None else dict(copies())

    def close(self) -> None:
        """Free the engine. Closing twice is allowed; a call after it raises ArtifactError."""
        with self._lock:
            if self._session is not None:
                self._session.close()
            self._session = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _inputs(self, frame: UInt8, order: str) -> Mapping[str, Array]:
        return prepare(self.manifest, frame, order)

    def _infer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        with self._lock:
            return self._open_session().run(inputs)

    def _open_session(self) -> Session:
        if self._session is None:
            raise ArtifactError(f"the runtime of {self.spec.name!r} is closed; load the artifact again")
        return self._session

    def _decoded(self, answers: Mapping[str, Array], size: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        if self.manifest.frame_size is None:
            return {task.name: decode(answers[task.name], task, size) for task in self.spec.tasks}
        _check_finite(answers)
        return dict(answers)


def _is_finite(array: Array) -> bool:
    # The sum of finite float32 is finite in float64, and of anything else it is not: no mask is made.
    with np.errstate(invalid="ignore"):  # infinities of both signs
        return array.dtype.kind != "f" or bool(np.isfinite(array.sum(dtype=np.float64)))


def _check_finite(answers: Mapping[str, Array]) -> None:
    for name, answer in answers.items():
        if not _is_finite(answer):
            raise ArtifactError(f"output {name!r} holds values that are not finite: the engine overflowed")


def _listed(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name!r} {dtype} {shape}" for name, (dtype, shape) in tensors.items()) or "none"
