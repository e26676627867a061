"""The learning-rate finder, Lightning's: losses at ever larger rates, one step each (Smith, arXiv 1506.01186)."""

from __future__ import annotations

import tempfile

import lightning
from lightning.pytorch.tuner import Tuner

from emadeploy.contract.errors import DataError, SpecError
from emadeploy.data.sample import Dataset
from emadeploy.train.batches import Draws
from emadeploy.train.fit import LIGHTNING_PRECISIONS, check_tasks, make_loaders, starting_model
from emadeploy.train.machine import check_machine
from emadeploy.train.module import TrainingModule
from emadeploy.train.report import quiet
from emadeploy.train.run import Run

#: Steps, and the rates of the first and the last of them.
STEPS, LOWEST, HIGHEST = 100, 1e-7, 0.1


def find_rate(run: Run, train_set: Dataset, steps: int = STEPS) -> float:
    """Return the rate at which the loss of ``run`` falls fastest; nothing is written into its folder.

    Raises SpecError for more than one device; DataError where the losses show no such rate, and as `fit` does.
    """
    if run.processes > 1:
        raise SpecError(f"the learning rate is looked for on one device, --devices x --nodes is {run.processes}")
    check_machine(run)
    check_tasks(run.spec, train_set, "training")
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    loader, _ = make_loaders(run, train_set, train_set)
    skip, source = run.on_corrupt == "skip", train_set.description
    module = TrainingModule(starting_model(run), run.spec, steps, seed=run.seed, skip_corrupt=skip, data=source)
    module.train()
    assert isinstance(loader.sampler, Draws)
    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=LIGHTNING_PRECISIONS[run.spec.train.precision],
            gradient_clip_val=run.spec.train.clip_norm,
            max_epochs=-(-steps // loader.sampler.batches),
            default_root_dir=scratch,  # where it keeps the weights that it brings back
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        finder = Tuner(trainer).lr_find(
            module, loader, min_lr=LOWEST, max_lr=HIGHEST, num_training=steps, update_attr=False
        )
    rate = finder.suggestion() if finder is not None else None
    if rate is None:
        raise DataError(
            f"the losses of {steps} steps show no rate at which they fall; look at the data, or name a rate"
        )
    return float(rate)
