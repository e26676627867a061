"""What a training run prints: a line when it starts, one per validation, one when it ends. And what it keeps quiet."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import lightning
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from emadeploy import __version__
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.delta import delta_m
from emadeploy.evaluate.metrics import METRICS
from emadeploy.train.module import TrainingModule
from emadeploy.train.run import Run

#: Warnings of Lightning and PyTorch that tell a user nothing: beginnings of their messages.
_NOISE = (
    # Frames are small and cached: one process that loads them is enough, more is --workers.
    r".*does not have many workers",
    r".*number of training batches .* is smaller than the logging interval",
    # A run that continues writes its metrics where they were.
    r"Experiment logs directory .* exists and is not empty",
    # Lightning calls PyTorch by a name that the newest PyTorch retires.
    r".*LeafSpec",
    r".*treespec",
    r"`isinstance\(treespec",
    # Lightning finds no Slurm command, no interactive shell and so on.
    r".*`srun` command is available",
    # Every process has the same metrics: their sums were added up already.
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",
    # Frozen statistics are in evaluation mode, as asked.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # The finder of learning rates judges nothing.
    r"You defined a `validation_step` but have no `val_dataloader`",
    # The trainer itself restores schedule and optimiser in this order.
    r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence, inside the block, Lightning's advertisements and the warnings in which there is nothing to do."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def progress_bars() -> list[Callback]:
    """Return the callbacks that show a bar: one on stderr where that is a terminal, else none."""
    return [RichProgressBar(console_kwargs={"stderr": True})] if sys.stderr.isatty() else []


class Report(Callback):
    """Prints the lines of a run, in the process that is first of all."""

    def __init__(self, run: Run, data: str) -> None:
        self.run, self.spec, self.data = run, run.spec, data
        self.baseline = run.baseline_metrics()
        self.started_at = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Say what is trained on what, and with which versions."""
        assert isinstance(module, TrainingModule)
        recipe, millions = self.spec.train, sum(parameter.numel() for parameter in module.model.parameters()) / 1e6
        self._print(
            trainer,
            f"training {self.spec.name} ({self.spec.network}, {millions:.1f} M parameters) on {self.data}: "
            f"steps {trainer.global_step} to {module.steps} of {recipe.batch_size * recipe.accumulate} "
            f"frames, {recipe.precision} on {self._devices(module)}; "
            f"emadeploy {__version__}, torch {torch.__version__}, lightning {lightning.__version__}",
        )

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Print the primary metric of each task."""
        assert isinstance(module, TrainingModule)
        spent = time.monotonic() - self.started_at
        gain = "" if self.baseline is None else f", delta_m {delta_m(module.results, self.baseline):+.2f} %"
        lost = f", corrupt frames left out: {len(module.corrupt)}" if module.corrupt else ""
        words = in_words(module.results, self.spec)
        self._print(trainer, f"step {module.global_step}, {spent:.0f} s: {words}{gain}{lost}")

    def _devices(self, module: TrainingModule) -> str:
        if self.run.processes == 1:
            return str(module.device)
        statistics = self.spec.train.batch_norm
        return f"{self.run.processes} x {module.device.type} (batch statistics {statistics})"

    def _print(self, trainer: lightning.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            print(line, flush=True)


def in_words(metrics: Mapping[str, Mapping[str, float]], spec: ModelSpec) -> str:
    """Return the primary metric of each task: 'semseg miou 41.2 %, depth abs 0.31 metre'."""
    words = []
    for task, row in metrics.items():
        primary = METRICS[task][0]
        unit = spec.task(task).unit if primary.unit == "unit" else primary.unit
        words.append(f"{task} {primary.name} {row[primary.name]:.4g} {unit}".rstrip())
    return ", ".join(words) or "nothing to judge"
