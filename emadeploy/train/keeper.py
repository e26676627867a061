"""What a run keeps: `last/` and `best/`, and the trainer's state to continue from. Each outlives a kill at any moment.

A save that fails (a full disk) leaves what was there before; weights that are not finite are never saved.
"""

from __future__ import annotations

import io
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError, DataError, EmadeployError
from emadeploy.evaluate.delta import delta_m
from emadeploy.evaluate.metrics import METRICS, TaskMetrics
from emadeploy.train import processes
from emadeploy.train.batches import Batches, Loader
from emadeploy.train.module import TrainingModule
from emadeploy.train.run import STATE, Run, lost_write

#: Seconds between two saves inside a long epoch.
SAVE_EVERY_S = 600.0


class Interrupted(EmadeployError):  # noqa: N818 - it was asked for
    """The run was ended by Ctrl-C, everything saved; the message says how to continue."""


class AtomicState(TorchCheckpointIO):
    """Writes the trainer's state beside its place, brings it to disk, and moves it there.

    Where that fails the former state is as it was, and ``problem`` says why: an error raised here, in the first
    process, would leave the others waiting for it.
    """

    problem: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, or set ``problem``."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self.problem = f"{path} cannot be written: {error.strerror or error}"


class Keeper(Callback):
    """Saves `last/` and the trainer's state after every epoch and every ten minutes, `best/` when it is better.

    It also ends the run: after its steps, when validations no longer get better, or on Ctrl-C.
    """

    def __init__(self, run: Run, loader: Loader, steps: int) -> None:
        self.run, self.loader, self.steps, self.state_io = run, loader, steps, AtomicState()
        self.judge = judge_of(run.baseline_metrics())
        self.best, self.waited, self.saved_at = math.inf, 0, time.monotonic()
        #: Optimiser steps at the last save, and at the last validation.
        self.saved_step, self.validated_at = -1, -1
        self.interrupted = False

    def state_dict(self) -> dict[str, float]:
        """Return what goes with the trainer's state."""
        return {"best": self.best, "validated_at": self.validated_at, "waited": self.waited, "frames": self._frames}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take it back; raises DataError where what is left to draw would be drawn from other frames."""
        before = int(state.get("frames", self._frames))
        if before != self._frames:
            raise DataError(
                f"the training data has {self._frames} frames, and had {before} when {self.run.output} was saved; "
                "resume with the same data, or start anew from its weights with "
                f"--from {self.run.output / 'last'} -o ANOTHER"
            )
        self.best = state["best"]
        self.validated_at, self.waited = int(state["validated_at"]), int(state.get("waited", 0))

    @property
    def _frames(self) -> int:
        """How many frames there are to train on."""
        dataset = self.loader.dataset
        assert isinstance(dataset, Batches)
        return len(dataset)

    @property
    def has_waited_enough(self) -> bool:
        """Whether too many validations in a row were no better than the best."""
        patience = self.run.spec.train.early_stopping
        return patience is not None and self.waited >= patience

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """A run that had ended early does not go on when it is resumed."""
        trainer.should_stop = self.has_waited_enough

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, between two steps of the optimiser."""
        self.loader.position = trainer.current_epoch, batch_idx + 1
        trainer.should_stop = module.global_step >= self.steps
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # the epoch's end saves; half a step's gradients are in no state
        is_late = time.monotonic() - self.saved_at > SAVE_EVERY_S
        if processes.anyone(is_late or self.interrupted, module.device):
            self._save(trainer, module)
        self._end_if_interrupted(trainer, module)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Keep the best."""
        assert isinstance(module, TrainingModule)
        self.validated_at = module.global_step
        error = self.judge(module.results)
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._save_weights(module, "last")  # the same weights, now with their metrics
        self.waited = 0 if error < self.best else self.waited + 1
        if error < self.best:
            self.best = error
            self._save_weights(module, "best")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save, after the validation."""
        self.loader.position = trainer.current_epoch + 1, 0
        self._save(trainer, module)
        trainer.should_stop = trainer.should_stop or self.has_waited_enough
        self._end_if_interrupted(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save a run that ended inside an epoch."""
        if self.saved_step != module.global_step:
            self._save(trainer, module)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self.saved_at, self.saved_step = time.monotonic(), module.global_step
        # The state last: where a kill comes between the two, the run goes on from before and makes `last` anew.
        self._save_weights(module, "last")
        trainer.save_checkpoint(self.run.output / STATE)  # in every process; the first one writes
        self._stop_for(self.state_io.problem, module)

    def _save_weights(self, module: TrainingModule, name: str) -> None:
        _check_finite(module)
        problem = None
        if processes.rank() == 0:
            try:
                nets.save_checkpoint(
                    self.run.output / name,
                    module.judged,
                    self.run.spec,
                    step=module.global_step,
                    metrics=module.results,
                )
            except ArtifactError as error:
                problem = str(error)
        self._stop_for(problem, module)

    def _stop_for(self, problem: str | None, module: TrainingModule) -> None:
        said = None if problem is None else lost_write(self.run, problem)
        processes.stop_for(said, ArtifactError, module.device)

    def _end_if_interrupted(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if processes.anyone(self.interrupted, module.device):
            raise Interrupted(
                f"stopped at step {module.global_step} of {self.steps}; {self.run.output}/last holds it. "
                "Continue with the same command and --resume"
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let Ctrl-C, inside the block, end the run after the step at hand; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return
        before = signal.getsignal(signal.SIGINT)

        def on_interrupt(number: int, frame: Any) -> None:
            self.interrupted = True
            # Not print: the signal may have come in the midst of one.
            os.write(2, b"stopping after this step; press Ctrl-C again to stop at once\n")
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _check_finite(module: TrainingModule) -> None:
    unfit = [
        name
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if unfit:
        raise DataError(
            f"training stopped: at step {module.global_step} {len(unfit)} weights are not finite ({unfit[0]} ...), and "
            "were not saved; lower the learning rate, clip gradients (clip_norm), or train in fp32"
        )


def judge_of(baseline: TaskMetrics | None) -> Callable[[TaskMetrics], float]:
    """Return what gives each validation one number, smaller being better: :func:`error_of`, or less the gain over
    ``baseline``."""
    return error_of if baseline is None else lambda metrics: -delta_m(metrics, baseline)


def error_of(metrics: Mapping[str, Mapping[str, float]]) -> float:
    """Return one number to choose the best checkpoint by: the geometric mean over tasks of the primary metric's error.

    Percentages count as 100 minus the value. The geometric mean needs no scales: as in delta_m, halving any task's
    error counts the same.
    """
    logs = []
    for task, row in metrics.items():
        primary = METRICS[task][0]
        value = row[primary.name]
        logs.append(math.log(max(100.0 - value if primary.higher_is_better else value, 1e-9)))
    return math.exp(sum(logs) / len(logs)) if logs else math.inf
