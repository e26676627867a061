"""A training run: from a specification and data to `last/` and `best/`, checkpoints that outlive a kill at any moment.

What the run's folder holds is said in :mod:`emadeploy.train.run`.
"""

from __future__ import annotations

import copy
import errno
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader

from emadeploy import nets
from emadeploy.contract.errors import ArtifactError, DataError
from emadeploy.contract.meaning import check_truths
from emadeploy.contract.spec import ModelSpec
from emadeploy.data.sample import Dataset
from emadeploy.evaluate.records import check_same_data, read_record
from emadeploy.nets.entries import fill
from emadeploy.nets.quantised import QuantisedNetwork
from emadeploy.train.batches import Batch, Batches, Draws, InOrder, Loader, collate
from emadeploy.train.distil import Teacher
from emadeploy.train.keeper import Interrupted, Keeper
from emadeploy.train.logs import loggers
from emadeploy.train.machine import check_machine, strategy
from emadeploy.train.module import TrainingModule
from emadeploy.train.pictures import Pictures
from emadeploy.train.processes import synchronise_batch_norm
from emadeploy.train.report import Report, in_words, progress_bars, quiet
from emadeploy.train.run import STATE, Run, check_unused, lost_write, step_to_resume, write_record

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
#: What makes of a network the one that is fine-tuned in its place.
MakeStudent = Callable[[nets.Network], QuantisedNetwork]
#: Steps between two rows of the logs.
LOG_EVERY = 10
#: Precision of a recipe -> what Lightning calls it.
LIGHTNING_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def fit(
    run: Run,
    train_set: Dataset,
    val_set: Dataset,
    *,
    resume: bool = False,
    progress: bool = True,
    student: MakeStudent | None = None,
) -> Path:
    """Train, and return the folder of the best checkpoint.

    With a ``student`` of the run's network that one is trained, validated and kept, taught by the network as it was.

    The best is the one with the largest gain over the baseline or, where there is none, the smallest
    :func:`emadeploy.train.keeper.error_of`. Called in every process of a run on several devices.

    Raises:
        SpecError: the output holds another run, or there is nothing to resume.
        DeviceError: the devices or the precision are not to be had here.
        DataError: a data set lacks every task of the model or holds a corrupt frame, or the loss is not finite.
        ArtifactError: a checkpoint cannot be written; the one before is as it was.
        Interrupted: Ctrl-C; everything is saved.
    """
    check_machine(run)
    _check_data(run, train_set, val_set)
    step = step_to_resume(run) if resume else 0
    if not resume and rank_zero_only.rank == 0:  # the others may come after the first one's record
        check_unused(run)
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    # Convolutions run faster on it, in bfloat16 most of all.
    network = starting_model(run).to(memory_format=torch.channels_last)
    teacher = Teacher(copy.deepcopy(network), run.distil) if run.distil else None
    model = network if student is None else student(network)
    if not resume and rank_zero_only.rank == 0:
        write_record(run)
    trainer, module, keeper, data = _prepare(run, model, teacher, train_set, val_set, step=step, progress=progress)
    state = run.output / STATE if resume and (run.output / STATE).is_file() else None
    with quiet(), keeper.listening():
        try:
            trainer.fit(module, *data, ckpt_path=state, weights_only=True)
            if keeper.validated_at != module.global_step:
                # The last step was not the last of an epoch that is validated.
                trainer.validate(module, data[1], verbose=False)
        except Interrupted:
            if trainer.is_global_zero:
                raise
        except OSError as error:
            # Checkpoints have errors of their own: this is a log or a picture.
            if error.errno not in _NO_ROOM:
                raise
            raise ArtifactError(lost_write(run, f"{run.output} cannot be written: {error.strerror}")) from error
    best = run.output / "best"
    if progress and trainer.is_global_zero:
        _print_end(run, module)
    return best


def _prepare(
    run: Run,
    model: nets.Network | QuantisedNetwork,
    teacher: Teacher | None,
    train_set: Dataset,
    val_set: Dataset,
    *,
    step: int,
    progress: bool,
) -> tuple[lightning.Trainer, TrainingModule, Keeper, tuple[Loader, DataLoader[Batch]]]:
    recipe = run.spec.train
    train_loader, val_loader = make_loaders(run, train_set, val_set)
    epochs, steps = _length(run, train_loader)
    skip, source = run.on_corrupt == "skip", train_set.description
    module = TrainingModule(model, run.spec, steps, seed=run.seed, skip_corrupt=skip, data=source, teacher=teacher)
    keeper = Keeper(run, train_loader, steps)
    reports = [Report(run, f"{source} ({len(train_set)} frames)"), *progress_bars()] if progress else []
    with quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=strategy(run, has_unused=bool(set(run.spec.task_names) - set(train_set.tasks))),
            plugins=[keeper.state_io],
            precision=LIGHTNING_PRECISIONS[recipe.precision],
            gradient_clip_val=recipe.clip_norm,
            accumulate_grad_batches=recipe.accumulate,
            # No max_steps: with it, Lightning takes a finished epoch for an open one when a run continues.
            max_epochs=epochs,
            check_val_every_n_epoch=recipe.validate_every,
            logger=loggers(run.output, step),
            # Pictures first: what is shown belongs to the validation that `best` is chosen by.
            callbacks=[Pictures(run.output, run.spec), keeper, *reports],
            use_distributed_sampler=False,  # ours share the frames themselves
            enable_progress_bar=any(isinstance(report, ProgressBar) for report in reports),
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=LOG_EVERY,
            num_sanity_val_steps=0,
        )
    if run.processes > 1 and recipe.batch_norm == "synchronised":
        synchronise_batch_norm(module, trainer.strategy.root_device.type)
    module.train()  # Lightning takes the modes as they are, and brings them back after each validation
    return trainer, module, keeper, (train_loader, val_loader)


def _length(run: Run, loader: Loader) -> tuple[int, int]:
    """Return the epochs and the optimiser steps of a run.

    Where the run has a number of steps, the epochs are as many as it needs, the last one perhaps cut short.
    """
    assert isinstance(loader.sampler, Draws)
    per_epoch = math.ceil(loader.sampler.batches / run.spec.train.accumulate)
    epochs = math.ceil(run.steps / per_epoch) if run.steps else run.spec.train.epochs
    return epochs, run.steps or epochs * per_epoch


def _check_data(run: Run, train_set: Dataset, val_set: Dataset) -> None:
    for samples, what in ((train_set, "training"), (val_set, "validation")):
        check_tasks(run.spec, samples, what)
        if len(samples) < run.processes:
            raise DataError(
                f"the {what} data {samples.description} has {len(samples)} frames for {run.processes} devices; "
                "every device needs one at least"
            )
    if run.baseline is None:
        return
    baseline, judged = read_record(run.baseline), {name for name in run.spec.task_names if name in val_set.tasks}
    if set(baseline["tasks"]) != judged:
        raise DataError(
            f"the baseline {run.baseline} holds {', '.join(baseline['tasks'])}; the gain of {run.spec.name} on "
            f"{val_set.description} needs {', '.join(sorted(judged))}"
        )
    check_same_data(baseline, val_set.description, len(val_set))


def check_tasks(spec: ModelSpec, samples: Dataset, what: str) -> None:
    """Raise DataError where the ``what`` ('training') data has no task of the model, or one of another meaning."""
    missing = [name for name in spec.task_names if name not in samples.tasks]
    if len(missing) == len(spec.tasks):
        raise DataError(
            f"the {what} data {samples.description} has no truth for {', '.join(missing)}; it has "
            f"{', '.join(samples.tasks) or 'none at all'}"
        )
    check_truths(samples.specs, spec.tasks, f"the {what} data {samples.description}")


def starting_model(run: Run) -> nets.Network:
    """Return the network of the run's own specification, with the weights it starts from."""
    model = nets.build(run.spec)
    if run.start_from:
        checkpoint = nets.read_checkpoint(run.start_from)
        state, size = checkpoint.state_dict(), checkpoint.spec.input.size
        if size != run.spec.input.size:
            state = nets.resize_state_dict(state, size, run.spec.input.size, checkpoint.spec.ctal.stride)
        fill(model, state, f"{run.start_from} ({checkpoint.spec.name}) as model {run.spec.name!r}")
    elif run.backbone:
        nets.load_backbone(model, run.backbone)
    return model


def make_loaders(run: Run, train_set: Dataset, val_set: Dataset) -> tuple[Loader, DataLoader[Batch]]:
    """Return what gives this process its batches, to train and to validate on."""
    recipe = run.spec.train
    shared: dict[str, Any] = {
        "batch_size": recipe.batch_size // run.processes,
        "num_workers": run.workers,
        "pin_memory": torch.cuda.is_available(),
        "collate_fn": collate,
        "worker_init_fn": _leave_interrupts,
    }
    draws = Draws(len(train_set), recipe, seed=run.seed)
    return (
        Loader(Batches(train_set, run.spec), sampler=draws, **shared),
        DataLoader(Batches(val_set, run.spec, replace=False), sampler=InOrder(len(val_set)), **shared),
    )


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; what it ends, and when, is the trainer's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _print_end(run: Run, module: TrainingModule) -> None:
    best, last = run.output / "best", run.output / "last"
    found = nets.read_checkpoint(best)
    words = f"step {found.step}, {in_words(found.metrics, run.spec)}"
    print(f"trained {run.spec.name}: {best} ({words}), {last} (step {nets.read_checkpoint(last).step})")
    if module.corrupt:
        print(f"corrupt frames left out: {len(module.corrupt)}. {'; '.join(module.corrupt)}")
