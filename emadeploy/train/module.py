"""The Lightning module: one step of training, one of validation, the optimiser and its schedule."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from emadeploy.contract.outputs import decode
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.metrics import Metrics
from emadeploy.train.batches import Batch
from emadeploy.train.losses import MultiTaskLoss


class TrainingModule(lightning.LightningModule):
    """EMA-Net (or a baseline) under training: ``model`` is the network of ``spec``, ``steps`` the length of the run.

    The length is given, because asking Lightning for it (``estimated_stepping_batches``) while the optimiser is made
    starts the loader before the state of a run that continues is there: it would give out another epoch's frames.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, steps: int) -> None:
        super().__init__()
        self.model, self.spec, self.steps = model, spec, steps
        self.loss = MultiTaskLoss(spec.tasks, spec.train.weighting)
        self.metrics = Metrics(spec.tasks)
        #: Metrics per task of the last validation.
        self.results: dict[str, dict[str, float]] = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics with the trainer's state, so that a run that continues still knows them."""
        checkpoint["results"] = self.results

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.results = checkpoint.get("results", {})

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the total loss of one batch, and log it and each task's own."""
        image_B3HW, truth = batch
        total, per_task = self.loss(self.model(image_B3HW), truth)
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {total.item()} at step {self.global_step}")
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"loss/{name}": loss for name, loss in per_task.items()}, prog_bar=True)
        return total

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.metrics = Metrics(self.spec.tasks)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Decode every sample as the runtime would, and count its metrics."""
        image_B3HW, truth = batch
        raw = self.model(image_B3HW)
        size = (image_B3HW.shape[2], image_B3HW.shape[3])
        for sample in range(image_B3HW.shape[0]):
            decoded = {t.name: decode(raw[t.name][sample].float().cpu().numpy(), t, size) for t in self.spec.tasks}
            self.metrics.update(decoded, {name: _as_truth(target[sample]) for name, target in truth.items()})

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all samples together."""
        self.results = self.metrics.compute()
        self.log_dict({f"{task}/{name}": value for task, row in self.results.items() for name, value in row.items()})

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, and a cosine over the whole run (or warm restarts, doubling), stepped with every batch."""
        recipe = self.spec.train
        optimiser = torch.optim.Adam(self.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=self.steps)
        else:
            first = max(round(self.steps * recipe.warm_restart_epochs / recipe.epochs), 1)
            schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=first, T_mult=2)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _as_truth(target: Tensor) -> Any:
    """Return a truth tensor in the form of decoded maps: channels last, no axis for a single one."""
    array = target.cpu().numpy()
    if array.ndim == 2:
        return array.astype("uint8")
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
