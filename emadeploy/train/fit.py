"""A training run: from a specification and data to `last/` and `best/`, checkpoints that outlive a kill at any moment.

runs/NAME/run.json         what was asked for; a resumed run must ask for the same
runs/NAME/last, best       Checkpoints: weights and metrics, each replaced in one step
runs/NAME/trainer.ckpt     optimiser, schedule and position, for --resume
runs/NAME/metrics.csv      losses and metrics
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError, DataError, SpecError, first_line
from emadeploy.contract.manifest import file_digest
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset
from emadeploy.evaluate.metrics import METRICS
from emadeploy.nets.entries import fill
from emadeploy.train.batches import Batches, Draws, Loader
from emadeploy.train.module import TrainingModule
from emadeploy.train.report import Report, in_words, progress_bars, quiet

#: Seconds between two saves inside a long epoch.
SAVE_EVERY_S = 600.0
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Run:
    """What a training run is asked for. Raises SpecError where that makes no sense.

    ``steps`` (optimiser steps in all) replaces the recipe's epochs. The weights start at random, or from those of a
    checkpoint (``start_from``, of any image size), or with the HRNet weights in the file ``backbone``.
    """

    spec: ModelSpec
    output: Path
    train_data: str
    val_data: str
    steps: int | None = None
    seed: int = 0
    precision: str = "fp32"
    devices: int = 1
    workers: int = 0
    start_from: Path | None = None
    backbone: Path | None = None
    validate_every: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SpecError(f"precision {self.precision!r} is unknown; known: {', '.join(PRECISIONS)}")
        for name in ("devices", "validate_every"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} {getattr(self, name)} is not positive")
        if self.steps is not None and self.steps < 1:
            raise SpecError(f"steps {self.steps} is not positive")
        if self.start_from and self.backbone:
            raise SpecError(f"weights start from {self.start_from} or with the backbone {self.backbone}, not both")
        if self.backbone and not self.backbone.is_file():
            raise SpecError(f"backbone {self.backbone} is not a file; expected ImageNet weights of the HRNet")

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the run, as plain data: not where it lies nor what it runs on."""
        kept = {"train_data", "val_data", "steps", "seed", "precision", "start_from"}
        plain = {name: value for name, value in dataclasses.asdict(self).items() if name in kept}
        plain["start_from"] = str(self.start_from) if self.start_from else None
        plain["backbone"] = (
            {"name": self.backbone.name, "sha256": file_digest(self.backbone)} if self.backbone else None
        )
        return {"spec": self.spec.to_dict(), **plain}


def fit(run: Run, train_set: Dataset, val_set: Dataset, *, resume: bool = False, progress: bool = True) -> Path:
    """Train, and return the folder of the best checkpoint.

    The best is the one with the smallest :func:`error_of`. Raises SpecError where the output holds another run, or
    there is nothing to resume; DataError where a data set lacks every task of the model, or the loss is not finite.
    """
    _check_tasks(run.spec, train_set, "training")
    _check_tasks(run.spec, val_set, "validation")
    state = _state_to_resume(run) if resume else _check_unused(run)
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    # Convolutions run faster on it, in bfloat16 most of all.
    model = _starting_model(run).to(memory_format=torch.channels_last)
    if not resume:
        _write_record(run)
    train_loader, val_loader = _loaders(run, train_set, val_set)
    epochs, steps = _length(run, len(train_set))
    module, keeper = TrainingModule(model, run.spec, steps), _Keeper(run, train_loader, steps)
    data = f"{train_set.description} ({len(train_set)} frames)"
    reports = [Report(run.spec, data, run.precision), *progress_bars()] if progress else []
    with quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=run.devices,
            precision=PRECISIONS[run.precision],
            # No max_steps: with it, Lightning takes a finished epoch for an open one when a run continues.
            max_epochs=epochs,
            check_val_every_n_epoch=run.validate_every,
            logger=CSVLogger(str(run.output), name="", version=""),
            callbacks=[keeper, *reports],
            enable_progress_bar=any(isinstance(report, ProgressBar) for report in reports),
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, train_loader, val_loader, ckpt_path=state, weights_only=True)
            if keeper.validated_at != module.global_step:
                # The last step was not the last of an epoch that is validated.
                trainer.validate(module, val_loader, verbose=False)
        except FloatingPointError as error:
            raise DataError(f"training stopped: {error}; {run.output}/last holds the state before") from None
    best, last = run.output / "best", run.output / "last"
    if progress and trainer.is_global_zero:
        found = nets.read_checkpoint(best)
        words = f"step {found.step}, {in_words(found.metrics, run.spec)}"
        print(f"trained {run.spec.name}: {best} ({words}), {last} (step {nets.read_checkpoint(last).step})")
    return best


def _length(run: Run, frames: int) -> tuple[int, int]:
    """Return the epochs and the optimiser steps of a run over so many frames.

    Where the run has a number of steps, the epochs are as many as it needs, the last one perhaps cut short.
    """
    batches = math.ceil(frames / run.devices) / run.spec.train.batch_size
    per_epoch = math.floor(batches) if batches > 1 else 1  # as `_loaders` drops what does not fill a batch
    epochs = math.ceil(run.steps / per_epoch) if run.steps else run.spec.train.epochs
    return epochs, run.steps or epochs * per_epoch


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


class _Keeper(Callback):
    """Saves `last/` and the trainer's state after every epoch and every ten minutes, `best/` when it is better."""

    def __init__(self, run: Run, loader: Loader, steps: int) -> None:
        self.run, self.loader, self.steps = run, loader, steps
        self.best, self.saved_at = math.inf, time.monotonic()
        #: Optimiser steps at the last validation.
        self.validated_at = -1

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "validated_at": self.validated_at}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best = state["best"]
        self.validated_at = int(state.get("validated_at", -1))

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self.validated_at = module.global_step
        error = error_of(module.results)
        if trainer.state.fn == TrainerFn.VALIDATING and trainer.is_global_zero:
            self._save_weights(module, "last")  # the same weights, now with their metrics
        if trainer.is_global_zero and error < self.best:
            self.best = error
            self._save_weights(module, "best")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.loader.position = trainer.current_epoch + 1, 0
        self._save(trainer, module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loader.position = trainer.current_epoch, batch_idx + 1
        trainer.should_stop = module.global_step >= self.steps
        # The last batch of an epoch is saved with the epoch's end.
        if time.monotonic() - self.saved_at > SAVE_EVERY_S and not trainer.is_last_batch:
            self._save(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._save(trainer, module)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self.saved_at = time.monotonic()
        partial = self.run.output / ".trainer.ckpt.partial"
        trainer.save_checkpoint(partial)  # on every rank: Lightning gathers, then rank 0 writes
        if trainer.is_global_zero:
            os.replace(partial, self.run.output / "trainer.ckpt")
            self._save_weights(module, "last")

    def _save_weights(self, module: TrainingModule, name: str) -> None:
        nets.save_checkpoint(
            self.run.output / name, module.model, self.run.spec, step=module.global_step, metrics=module.results
        )


def _check_tasks(spec: ModelSpec, samples: Dataset, what: str) -> None:
    missing = [name for name in spec.task_names if name not in samples.tasks]
    if len(missing) == len(spec.tasks):
        raise DataError(
            f"the {what} data {samples.description} has no truth for {', '.join(missing)}; it has "
            f"{', '.join(samples.tasks) or 'none at all'}"
        )


def _starting_model(run: Run) -> nets.Network:
    """Return the network of the run's own specification, with the weights it starts from."""
    model = nets.build(run.spec)
    if run.start_from:
        checkpoint = nets.read_checkpoint(run.start_from)
        state, size = checkpoint.state_dict(), checkpoint.spec.input.size
        if size != run.spec.input.size:
            state = nets.resize_state_dict(state, size, run.spec.input.size)
        fill(model, state, f"{run.start_from} ({checkpoint.spec.name}) as model {run.spec.name!r}")
    elif run.backbone:
        nets.load_backbone(model, run.backbone)
    return model


def _check_unused(run: Run) -> None:
    record = run.output / "run.json"
    if record.exists():
        raise SpecError(f"{run.output} already holds a run; continue it with --resume, or name another with -o")


def _write_record(run: Run) -> None:
    try:
        run.output.mkdir(parents=True, exist_ok=True)
        (run.output / "run.json").write_text(json.dumps(run.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{run.output} cannot be written: {error.strerror or error}; name another with -o") from None


def _state_to_resume(run: Run) -> Path:
    """Return the trainer's state to continue from; raises SpecError where it is of another run, or there is none."""
    record, state = run.output / "run.json", run.output / "trainer.ckpt"
    if not state.is_file():
        raise SpecError(f"{run.output} holds no run to resume (no trainer.ckpt); start it without --resume")
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        torch.load(state, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ArtifactError(
            f"{run.output} cannot be resumed, its run.json or trainer.ckpt is damaged ({first_line(error)}); "
            f"start anew from its weights with --from {run.output / 'last'} -o ANOTHER"
        ) from None
    differences = _differences(before, json.loads(json.dumps(run.to_dict())))
    if differences:
        raise SpecError(
            f"{record} was asked for something else: {'; '.join(differences)}. "
            "Resume with the same options, or start anew with -o"
        )
    return state


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Return what differs between two records, leaf by leaf: "train.epochs was 2, is 3". Absent is the same as None."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [*before, *(name for name in now if name not in before)]
        return [d for n in names for d in _differences(before.get(n), now.get(n), f"{path}.{n}" if path else n)]
    return [] if before == now else [f"{path} was {json.dumps(before)}, is {json.dumps(now)}"]


def _loaders(run: Run, train_set: Dataset, val_set: Dataset) -> tuple[Loader, DataLoader[Any]]:
    size, recipe = run.spec.train.batch_size, run.spec.train
    draws = Draws(len(train_set), seed=run.seed, flip=recipe.horizontal_flip)
    in_order = [(index, False) for index in range(len(val_set))]
    shared: dict[str, Any] = {"batch_size": size, "num_workers": run.workers, "pin_memory": torch.cuda.is_available()}
    return (
        Loader(Batches(train_set, run.spec), sampler=draws, drop_last=len(train_set) > size, **shared),
        DataLoader(Batches(val_set, run.spec), sampler=in_order, **shared),
    )
