"""What a training run is asked for, and the folder that it owns.

runs/NAME/run.json         what was asked for; a resumed run must ask for the same
runs/NAME/last, best       Checkpoints: weights and metrics, each replaced in one step
runs/NAME/trainer.ckpt     optimiser, schedule and position, for --resume
runs/NAME/metrics.csv      losses and metrics; tensorboard/ holds the same
runs/NAME/pictures         what the network sees, after each validation
runs/NAME/int8             the quantised graph that --qat fine-tunes
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emadeploy.contract.errors import ArtifactError, SpecError, first_line
from emadeploy.contract.manifest import file_digest
from emadeploy.contract.spec import ModelSpec
from emadeploy.evaluate.records import read_record
from emadeploy.nets.checkpoint import read_checkpoint

RECORD, STATE = "run.json", "trainer.ckpt"
ON_CORRUPT = ("fail", "skip")


@dataclass(frozen=True)
class Run:
    """What a training run is asked for. Raises SpecError where that makes no sense.

    ``steps`` (optimiser steps in all) replaces the recipe's epochs. The weights start at random, or from those of a
    checkpoint (``start_from``, of any image size), or with the ImageNet weights in the file ``backbone``. ``devices``
    are those of each of ``nodes`` machines. ``baseline``, a record of `eval --json`, is what the multi-task gain is
    counted against: with it the best checkpoint is the one of the largest gain.

    ``qat``: the target for whose integers the checkpoint is fine-tuned, with fake quantisation; ``distil``: what the
    loss towards the answers of that checkpoint in float counts then, beside the tasks' own.
    """

    spec: ModelSpec
    output: Path
    train_data: str
    val_data: str
    steps: int | None = None
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    start_from: Path | None = None
    backbone: Path | None = None
    baseline: Path | None = None
    on_corrupt: str = "fail"
    qat: str | None = None
    distil: float | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} {getattr(self, name)} is not positive")
        if self.steps is not None and self.steps < 1:
            raise SpecError(f"steps {self.steps} is not positive")
        if self.start_from and self.backbone:
            raise SpecError(f"weights start from {self.start_from} or with the backbone {self.backbone}, not both")
        if self.backbone and not self.backbone.is_file():
            raise SpecError(f"backbone {self.backbone} is not a file; expected ImageNet weights of the backbone")
        if self.on_corrupt not in ON_CORRUPT:
            raise SpecError(f"on_corrupt {self.on_corrupt!r} is unknown; known: {', '.join(ON_CORRUPT)}")
        if self.qat is None:
            if self.distil is not None:
                raise SpecError(f"distil {self.distil:g} is a weight beside --qat alone; leave it out")
        else:
            self._check_qat()
        batch, processes = self.spec.train.batch_size, self.processes
        if batch % processes:
            raise SpecError(
                f"a batch of {batch} frames cannot be shared evenly by {processes} devices; the batch is that of all "
                f"devices together: choose a multiple of {processes} with --batch"
            )

    def _check_qat(self) -> None:
        recipe = self.spec.train
        if self.start_from is None:
            raise SpecError(f"--qat {self.qat} fine-tunes a trained network: name its checkpoint with --from")
        if self.processes > 1:
            raise SpecError(f"--qat {self.qat} runs on one device, --devices x --nodes is {self.processes}")
        if recipe.precision != "fp32":
            raise SpecError(f"--qat {self.qat} trains in fp32, which its scales need; precision is {recipe.precision}")
        if recipe.batch_norm != "frozen":
            raise SpecError(f"--qat {self.qat} needs batch_norm frozen, since it is folded; it is {recipe.batch_norm}")
        if self.distil is None or not 0 <= self.distil < float("inf"):
            raise SpecError(f"distil {self.distil} is not a number from 0 up")

    @property
    def processes(self) -> int:
        """How many processes train, one per device."""
        return self.devices * self.nodes

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the run, as plain data: not where it lies nor what it runs on.

        Raises ArtifactError where ``start_from`` is no checkpoint.
        """
        kept = {"train_data", "val_data", "steps", "seed", "qat", "distil"}
        plain = {name: value for name, value in dataclasses.asdict(self).items() if name in kept}
        # By its weights: what they were when the run started is what a teacher must still be when it goes on.
        source = self.start_from
        plain["start_from"] = {"folder": str(source), "sha256": read_checkpoint(source).digest} if source else None
        for name in ("backbone", "baseline"):
            file: Path | None = getattr(self, name)
            plain[name] = {"name": file.name, "sha256": file_digest(file)} if file else None
        return {"spec": self.spec.to_dict(), **plain}

    def baseline_metrics(self) -> Mapping[str, Mapping[str, float]] | None:
        """Return the baseline's metrics by task, or None; raises DataError where the file is no record of `eval`."""
        return read_record(self.baseline)["tasks"] if self.baseline else None


def check_unused(run: Run) -> None:
    """Raise SpecError where the output holds a run already."""
    if (run.output / RECORD).exists():
        raise SpecError(f"{run.output} already holds a run; continue it with --resume, or name another with -o")


def write_record(run: Run) -> None:
    """Write down what was asked for; raises SpecError where the folder cannot be written."""
    try:
        run.output.mkdir(parents=True, exist_ok=True)
        partial = run.output / f".{RECORD}.partial"
        partial.write_text(json.dumps(run.to_dict(), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, run.output / RECORD)
    except OSError as error:
        raise SpecError(f"{run.output} cannot be written: {error.strerror or error}; name another with -o") from None


def lost_write(run: Run, problem: str) -> str:
    """Return the message of a run that ends because something could not be written."""
    return (
        f"training stopped: {problem}. The checkpoints in {run.output} are those of the save before; "
        "make room and continue with --resume"
    )


def step_to_resume(run: Run) -> int:
    """Return the step that the trainer's state stands at, having checked that it is of this run and whole.

    A run that was ended before its first save stands at 0, without a state. Raises SpecError where the folder holds
    another run, or none; ArtifactError where it is damaged.
    """
    record, state = run.output / RECORD, run.output / STATE
    if not record.is_file():
        raise SpecError(f"{run.output} holds no run to resume (no {RECORD}); start it without --resume")
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        # A recipe's field that is younger than the run has its default.
        before["spec"] = ModelSpec.from_dict(before["spec"]).to_dict()
        step = int(torch.load(state, map_location="cpu", weights_only=True)["global_step"]) if state.exists() else 0
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError, SpecError) as error:
        raise ArtifactError(
            f"{run.output} cannot be resumed, its {RECORD} or {STATE} is damaged ({first_line(error)}); "
            f"start anew from its weights with --from {run.output / 'last'} -o ANOTHER"
        ) from None
    differences = _differences(before, json.loads(json.dumps(run.to_dict())))
    if differences:
        raise SpecError(
            f"{record} was asked for something else: {'; '.join(differences)}. "
            "Resume with the same options, or start anew with -o"
        )
    return step


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Return what differs between two records, leaf by leaf: "train.epochs was 2, is 3". Absent is the same as None."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [*before, *(name for name in now if name not in before)]
        return [d for n in names for d in _differences(before.get(n), now.get(n), f"{path}.{n}" if path else n)]
    return [] if before == now else [f"{path} was {json.dumps(before)}, is {json.dumps(now)}"]
