"""An int8 engine that can be made again and again, with other layers in higher precision each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import onnx

from emadeploy.build import builder
from emadeploy.build.graph import OnnxGraph
from emadeploy.calibrate import quantizer
from emadeploy.calibrate.frames import CalibrationFrames
from emadeploy.calibrate.half_choice import Choice
from emadeploy.calibrate.learned import learned_for
from emadeploy.calibrate.recipe import Recipe
from emadeploy.calibrate.units import Unit, units_of
from emadeploy.calibrate.work import work_of
from emadeploy.cli.exporting.health import FRAMES
from emadeploy.cli.exporting.portable import PORTABLE, choose_half, stand_in, typed
from emadeploy.cli.exporting.trial import ENGINES, open_trial
from emadeploy.cli.progress import progress
from emadeploy.contract.health import Health, health
from emadeploy.contract.manifest import TARGETS, Manifest
from emadeploy.contract.preprocess import UInt8
from emadeploy.data.sample import Dataset
from emadeploy.evaluate.metrics import TaskMetrics
from emadeploy.evaluate.parity import Parity, raw_error
from emadeploy.evaluate.run import evaluate
from emadeploy.runtime import Runtime, load
from emadeploy.runtime.session import Array

#: Frames that a probe looks at: its errors are of layers, which differ little from frame to frame.
PROBED = 4


class Int8:
    """The quantised forms of one graph. `artifact` is where the one made last lies, `judged` what judges it."""

    def __init__(
        self,
        graph: OnnxGraph,
        frames: CalibrationFrames,
        recipe: Recipe,
        target: str,
        folder: Path,
        report: Callable[[str], None],
    ) -> None:
        self.graph, self.frames, self.recipe, self.target, self.folder = graph, frames, recipe, target, folder
        self.artifact, self._stand_in = folder / "artifact", folder / "stand-in"
        self._report = report
        self._built: tuple[frozenset[str], Manifest] | None = None
        self._open: tuple[frozenset[str], Runtime] | None = None
        #: The health of the first frames that were measured last, where it can be told.
        self.seen: list[Health] = []
        task = "calibrating" if learned_for(graph, recipe) is None else "taking the learned ranges, trying out"
        report(f"{task} {target} on {len(frames)} frames of {frames.description} (digest {frames.digest[:12]})")

    @property
    def engine(self) -> str:
        """The engine of the target."""
        return TARGETS[self.target][0]

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What can stay in higher precision: layers and blocks, with their multiplications as the cost."""
        return units_of(work_of(onnx.load(self.graph.path)))

    @cached_property
    def half(self) -> Choice | None:
        """What stays in float32 beside float16; ``None`` where the recipe's rest is another."""
        return choose_half(self.graph, self.frames, self._report) if self.recipe.rest == "fp16" else None

    def build(self, keep: frozenset[str]) -> Manifest:
        """Make the artifact with the nodes ``keep`` in the recipe's higher precision, in the place of the last one."""
        if self._built is None or self._built[0] != keep:
            self.close()
            graph = self._quantised(keep)
            if self.engine in PORTABLE:
                graph = typed(graph, self.folder / "typed", self.half)
            manifest = builder(self.engine)(graph, self.artifact, self.target)
            if not manifest.compiled:
                stand_in(graph, self._stand_in)
            self._built = keep, manifest
        return self._built[1]

    @property
    def judged(self) -> Path:
        """The artifact that is run: the one made last or, where only its device can compile that, its stand-in."""
        assert self._built is not None, "judged before built"
        return self.artifact if self._built[1].compiled else self._stand_in

    def measure(self, keep: frozenset[str], data: Dataset) -> TaskMetrics:
        """Return the metrics by task on ``data``, with the nodes ``keep`` in higher precision.

        Plain int8 is built and audited first, so that an engine without it fails at once. What was built last is
        judged as it was built; anything else is tried out, where the engine can do that (`trial`).
        """
        perception, tasks = self._opened(keep), self.graph.model.tasks
        self.seen = []

        def predict(frame: UInt8) -> Mapping[str, Array]:
            answers = perception(frame)
            if len(self.seen) < FRAMES and (found := health(answers, tasks)) is not None:
                self.seen.append(found)
            return answers.maps

        with progress("evaluating int8") as bar:
            record = evaluate(predict, data, tasks, bar)
        metrics: TaskMetrics = record["tasks"]
        return metrics

    def probe(self, keep: frozenset[str]) -> Mapping[str, float]:
        """Return the error by task of the raw maps against the graph in float, on a few calibration frames."""
        perception = self._opened(keep)
        errors = dict.fromkeys(self.graph.model.task_names, 0.0)
        for frame, wanted in zip(self._probed, self._wanted, strict=True):
            found = perception.raw(frame)
            for task in errors:
                errors[task] += raw_error(found[task], wanted[task]) / len(self._probed)
        return errors

    def close(self) -> None:
        """Free the engine that was measured or probed last."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def parity(self) -> dict[str, dict[str, float]]:
        """Return how far the artifact made last is from the graph in float, by task, on a few calibration frames."""
        assert self._built is not None, "parity before built"
        tally, perception = Parity(self.graph.model.tasks), self._opened(self._built[0])
        with load(self.in_float, warm_up=False) as reference:
            for frame in self._probed:
                tally.update(perception(frame).maps, reference(frame).maps)
        return tally.compute()

    def _opened(self, keep: frozenset[str]) -> Runtime:
        """Return the engine with the nodes ``keep`` in higher precision; the one that was open before is closed."""
        if self._open is None or self._open[0] != keep:
            self.close()
            if not keep or self.engine not in ENGINES:
                self.build(keep)
            built = self._built is not None and self._built[0] == keep
            # Only now, with nothing open: the files of an open trial are mapped, and quantising writes them anew.
            runtime = load(self.judged) if built else open_trial(self._quantised(keep), self.target)
            self._open = keep, runtime
        return self._open[1]

    def _quantised(self, keep: frozenset[str]) -> OnnxGraph:
        quantize = quantizer(self.engine)
        with progress("calibrating") as bar:
            return quantize(self.graph, self.frames, self.recipe, self.folder / "int8", keep=keep, progress=bar)

    @cached_property
    def _probed(self) -> list[UInt8]:
        return list(islice(self.frames.raw(), PROBED))

    @cached_property
    def in_float(self) -> Path:
        """The graph in float, as an artifact of ONNX Runtime."""
        output = self.folder / "float"
        builder("onnxruntime")(replace(self.graph, calibration=None), output, "onnxruntime-fp32")
        return output

    @cached_property
    def _wanted(self) -> list[dict[str, Array]]:
        with load(self.in_float) as perception:
            return [perception.raw(frame) for frame in self._probed]
