"""`emadeploy train`: from a model and data to a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emadeploy.cli.options import Size, parse_size
from emadeploy.contract.errors import SpecError
from emadeploy.contract.spec import ModelSpec

if TYPE_CHECKING:
    from emadeploy.data.sample import Dataset


def command(
    data: Annotated[str, typer.Option(help="Training data, e.g. rooms:seed=1,count=2000 or nyuv2:DIR.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|model.yml", help="A zoo model, or the path of a model.yml. [default: that of --from]"
        ),
    ] = None,
    val_data: Annotated[str | None, typer.Option(help="Validation data [default: held out of the same kind].")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="[default: runs/NAME]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs [default: the recipe's].")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps in place of epochs.")] = None,
    size: Size = None,
    batch: Annotated[
        int | None, typer.Option(help="Frames per step, of all devices together [default: the recipe's].")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[default: the recipe's]")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Start from the weights of this checkpoint, or zoo model, of any size."),
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Fine-tune for the integers of this target, e.g. onnxruntime-int8 or trt-int8, and learn its scales.",
        ),
    ] = None,
    distil: Annotated[
        float | None,
        typer.Option(metavar="WEIGHT", help="--qat: what the answers of --from in float count. [default: 1]"),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Start from these ImageNet weights of the backbone.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16 (mixed) [default: the recipe's].")] = None,
    devices: Annotated[int, typer.Option(help="Devices to train on, of each node.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines that train together; start each with torchrun.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that load data, per device.")] = 0,
    validate_every: Annotated[
        int | None, typer.Option(help="Epochs between validations [default: the recipe's].")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Choose the best by delta_m over this `eval --json`.")
    ] = None,
    on_corrupt: Annotated[str, typer.Option(help="What to do with frames that cannot be read: fail or skip.")] = "fail",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Train nothing; print the learning rate at which the loss falls fastest.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
) -> None:
    """Train a model; leaves `last/` and `best/` checkpoints, safe against a kill at any moment."""
    from emadeploy import zoo
    from emadeploy.cli.options import requires
    from emadeploy.data.source import held_out

    with requires("training", "train"):
        from emadeploy.train.find_rate import find_rate
        from emadeploy.train.fit import fit
        from emadeploy.train.keeper import Interrupted
        from emadeploy.train.run import Run

    asked = {"epochs": epochs, "batch_size": batch, "learning_rate": learning_rate, "precision": precision}
    start_from = _checkpoint(start_from)
    base = zoo.load_spec(model) if model is not None else _spec_of(start_from)
    spec = _override(base, size, {**asked, "validate_every": validate_every})
    tuned: dict[str, Any] = {"qat": None, "steps": steps, "distil": distil}
    if qat is not None:
        with requires("fine-tuning for integers", "export"):
            from emadeploy.cli.fine_tuning import fine_tuned, make_student
        spec, tuned = fine_tuned(spec, qat, {**asked, "steps": steps, "distil": distil})
    val_data = val_data or held_out(data)
    run = Run(
        spec,
        output or Path("runs") / (spec.name if qat is None else f"{spec.name}.{tuned['qat']}"),
        data,
        val_data,
        seed=seed,
        devices=devices,
        nodes=nodes,
        workers=workers,
        start_from=start_from,
        backbone=backbone,
        baseline=baseline,
        on_corrupt=on_corrupt,
        **tuned,
    )
    if find_lr and qat is not None:
        raise SpecError(f"--find-lr looks at a network in float: leave out one of it and --qat {qat}")
    train_set = _open(data, "train")
    if find_lr:
        rate = find_rate(run, train_set)
        print(f"the loss falls fastest at a learning rate of {rate:.2g}: --learning-rate {rate:.2g}")
        return
    student = make_student(run, train_set, resume=resume) if qat is not None else None
    try:
        fit(run, train_set, _open(val_data, "val"), resume=resume, student=student)
    except Interrupted as stopped:
        print(f"emadeploy: {stopped}", file=sys.stderr)
        raise typer.Exit(130) from None


def _checkpoint(start_from: Path | None) -> Path | None:
    """Return the folder that --from says, which may be the name of a zoo model with weights."""
    from emadeploy import zoo

    if start_from is None or start_from.exists() or str(start_from) not in zoo.names():
        return start_from
    return zoo.weights(str(start_from)) or start_from


def _spec_of(start_from: Path | None) -> ModelSpec:
    if start_from is None:
        raise SpecError("nothing to train: name a model with --model, or a checkpoint to go on from with --from")
    from emadeploy import nets

    return nets.read_checkpoint(start_from).spec


def _open(data: str, split: str) -> Dataset:
    from emadeploy.cli.progress import progress
    from emadeploy.data.source import open_data
    from emadeploy.runtime.machine import usable_cores

    with progress(f"rendering {split}") as report:
        return open_data(data, split=split, workers=usable_cores(), progress=report)


def _override(spec: ModelSpec, size: str | None, asked: Mapping[str, Any]) -> ModelSpec:
    """Return ``spec`` with what the command line asks for in place of its own; None is not asked for."""
    recipe = replace(spec.train, **{name: value for name, value in asked.items() if value is not None})
    spec = replace(spec, train=recipe)
    if size is not None:
        height, width = parse_size(size)
        spec = replace(spec, input=replace(spec.input, height=height, width=width))
    return spec
