"""The Lightning module: one step of training, one of validation, the optimiser and its schedule."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from emadeploy.contract.errors import ArtifactError, DataError
from emadeploy.contract.outputs import decode
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.metrics import Metrics
from emadeploy.nets.quantised import QuantisedNetwork
from emadeploy.train import processes
from emadeploy.train.averaging import RunningMean
from emadeploy.train.batches import Batch
from emadeploy.train.distil import Teacher
from emadeploy.train.losses import MultiTaskLoss, valid_pixels
from emadeploy.train.pictures import Shown
from emadeploy.train.schedule import rate_factor

#: Frames of the validation data that pictures are made of.
SHOWN = 4
#: Names of frames in one message.
_NAMED = 16
#: The rate of learned scales, in times that of the weights: they are logarithms, and far fewer.
SCALES_RATE = 10.0


class TrainingModule(lightning.LightningModule):
    """EMA-Net (or a baseline) under training: ``model`` is the network of ``spec``, ``steps`` the length of the run.

    The length is given, because asking Lightning for it (``estimated_stepping_batches``) while the optimiser is made
    starts the loader before the state of a run that continues is there: it would give out another epoch's frames.

    ``skip_corrupt``: whether frames that cannot be read are counted in ``corrupt``, or end the run. ``data`` is what
    messages call the frames' source. ``teacher``: whose answers count beside the truth.

    ``model`` may be a `QuantisedNetwork`: its scales are then trained too.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        steps: int,
        *,
        seed: int = 0,
        skip_corrupt: bool = False,
        data: str = "the data",
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model, self.spec, self.steps = model, spec, steps
        self.seed, self.skip_corrupt, self.data, self.teacher = seed, skip_corrupt, data, teacher
        self.loss = MultiTaskLoss(spec.tasks, spec.train.weighting)
        self.average = RunningMean(model, spec.train.ema_decay) if spec.train.ema_decay else None
        self.metrics = Metrics(spec.tasks)
        #: Metrics per task of the last validation.
        self.results: dict[str, dict[str, float]] = {}
        #: What the last validation saw of its first frames.
        self.shown: list[Shown] = []
        #: What ends the run when this validation is done.
        self.problem: str | None = None
        #: Frames that could not be read, in words, each once.
        self.corrupt: dict[str, None] = {}

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: that of the mean weights, where the recipe asks for it."""
        return self.model if self.average is None else self.average.model

    def train(self, mode: bool = True) -> TrainingModule:
        """Switch between training and evaluation; frozen statistics stay as they are in both."""
        super().train(mode)
        if self.spec.train.batch_norm == "frozen":
            processes.freeze_batch_norm(self.model)
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics and the corrupt frames with the trainer's state: a run that continues still knows them."""
        checkpoint["results"], checkpoint["corrupt"] = self.results, list(self.corrupt)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.results = checkpoint.get("results", {})
        self.corrupt = dict.fromkeys(checkpoint.get("corrupt", ()))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what networks themselves draw (a timm backbone drops paths) by the position: no state to keep."""
        place = [self.seed, self.current_epoch, batch_idx, processes.rank()]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the total loss of one batch, and log it and each task's own.

        Raises DataError, in every process, for a loss that is not finite in one of them, and for a corrupt frame.
        """
        raw = self.model(batch.image)
        total, per_task = self.loss(raw, batch.truth)
        distilled = None if self.teacher is None else self.teacher.loss(raw, batch.image)
        total = total if distilled is None else total + distilled
        problem = self._note_corrupt(batch)
        if problem is None and not torch.isfinite(total):
            where = f"at step {self.global_step}, {_describe(batch, self.data)}"
            problem = f"training stopped: the loss is {total.item()} {where}"
        processes.stop_for(problem, DataError, self.device)
        size = len(batch.names)
        self.log("loss", total, prog_bar=True, sync_dist=True, batch_size=size)
        each = {f"loss/{name}": loss for name, loss in per_task.items()}
        each |= {} if distilled is None else {"loss/distilled": distilled}
        self.log_dict(each, prog_bar=True, sync_dist=True, batch_size=size)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and take the new weights into their mean."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self.model)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.metrics, self.shown, self.problem = Metrics(self.spec.tasks), [], None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode every sample as the runtime would, and count its metrics.

        Raises DataError for a corrupt frame and for answers that are not finite; of several processes all do, at the
        end of the validation.
        """
        self.problem = self.problem or self._note_corrupt(batch)
        if self.problem is None:
            self._judge(batch)
        # Several processes agree on it when all are done: here one may have a batch more than another.
        if processes.count() == 1:
            processes.stop_for(self.problem, DataError, self.device)

    def _judge(self, batch: Batch) -> None:
        raw = self.judged(batch.image)
        size = self.spec.input.size
        for index in range(len(batch.names)):
            try:
                decoded = {t.name: decode(raw[t.name][index].float().cpu().numpy(), t, size) for t in self.spec.tasks}
            except ArtifactError:
                where = f"at step {self.global_step}, {_describe(batch, self.data)}"
                self.problem = f"training stopped: the answers are not finite {where}"
                return
            truth = {
                name: _as_truth(target[index])
                for name, target in batch.truth.items()
                if valid_pixels(target[index : index + 1], name).any()
            }
            self.metrics.update(decoded, truth)
            if len(self.shown) < SHOWN and truth:
                self.shown.append(Shown(batch.names[index], batch.image[index].cpu().numpy(), truth, decoded))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all samples of all processes together: their sums are added up, never their metrics."""
        processes.stop_for(self.problem, DataError, self.device)
        # The first process tells of the frames that all of them had to leave out.
        for said in processes.messages("\n".join(self.corrupt) or None, self.device):
            self.corrupt.update(dict.fromkeys(said.split("\n")))
        state = processes.total_array(self.metrics.state(), self.device)
        self.results = Metrics.from_state(self.spec.tasks, state).compute()
        self.log_dict({f"{task}/{name}": value for task, row in self.results.items() for name, value in row.items()})

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, its rate set by :func:`rate_factor` for every step. What losses and scales learn does not decay."""
        recipe, model = self.spec.train, self.model
        network = model.network if isinstance(model, QuantisedNetwork) else model
        groups: list[dict[str, Any]] = [{"params": list(network.parameters()), "weight_decay": recipe.weight_decay}]
        if isinstance(model, QuantisedNetwork):
            rate = SCALES_RATE * recipe.learning_rate
            groups.append({"params": list(model.scales()), "weight_decay": 0.0, "lr": rate})
        if weights := list(self.loss.parameters()):
            groups.append({"params": weights, "weight_decay": 0.0})
        optimiser = torch.optim.Adam(groups, lr=recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, recipe, self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _note_corrupt(self, batch: Batch) -> str | None:
        """Count the batch's corrupt frames, or return the message that ends the run for them."""
        if batch.corrupt and not self.skip_corrupt:
            advice = "repair or remove its files, or go on without it: --on-corrupt skip"
            return f"{batch.corrupt[0]}; {advice}"
        self.corrupt.update(dict.fromkeys(batch.corrupt))
        return None


def _describe(batch: Batch, data: str) -> str:
    """Return the frames of a batch in words, and which of them hold values that are no numbers."""
    names = ", ".join(batch.names[:_NAMED]) + (" and more" if len(batch.names) > _NAMED else "")
    maps = {"picture": batch.image, **batch.truth}
    unfit = [
        f"the {what} of {name}"
        for index, name in enumerate(batch.names)
        for what, map_BCHW in maps.items()
        if not torch.isfinite(map_BCHW[index]).all()
    ]
    found = f"{', '.join(unfit)} holds values that are not finite" if unfit else "their files hold finite values alone"
    return (
        f"in the batch of frames {names} of {data}; {found}. Look at them with `emadeploy data check`, or lower "
        "the learning rate, clip gradients (clip_norm), or train in fp32"
    )


def _as_truth(target: Tensor) -> Any:
    """Return a truth tensor in the form of decoded maps: channels last, no axis for a single one."""
    array = target.cpu().numpy()
    if array.ndim == 2:
        return array.astype("uint8")
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
