"""What a run needs of the machine: its devices, the precision they can compute in, and how they work together."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from emadeploy.contract.errors import DeviceError, SpecError
from emadeploy.train.run import Run

#: How long a process waits for the others: the first one may be writing a checkpoint to a slow disk.
PATIENCE = timedelta(minutes=30)


def check_machine(run: Run) -> None:
    """Raise DeviceError where the run's devices or precision are not to be had, SpecError where torchrun disagrees."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and run.devices > gpus:
        raise DeviceError(f"--devices {run.devices}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
    if run.spec.train.precision == "fp16" and not gpus:
        raise DeviceError("precision fp16 needs a GPU, and there is none; on CPUs train in bf16 or fp32")
    started = int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else run.processes
    if started != run.processes:
        raise SpecError(
            f"torchrun has started {started} processes, --devices {run.devices} --nodes {run.nodes} makes "
            f"{run.processes}; give --devices as --nproc-per-node and --nodes as --nnodes"
        )
    if run.nodes > 1 and "WORLD_SIZE" not in os.environ:
        raise SpecError(
            f"--nodes {run.nodes}: start the command on every node with torchrun, e.g. torchrun --nnodes {run.nodes} "
            f"--nproc-per-node {run.devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m emadeploy.cli.app train"
        )


def strategy(run: Run, *, has_unused: bool) -> Any:
    """Return Lightning's strategy: DDP where there are several processes.

    ``has_unused``: whether the data leaves some tasks, and so some parameters, without any truth.
    """
    if run.processes == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return "auto"
    return DDPStrategy(find_unused_parameters=has_unused, timeout=PATIENCE)
