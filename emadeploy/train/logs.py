"""Where losses and metrics are written: a table, `metrics.csv`, and TensorBoard's files with the same in them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

TABLE, BOARD = "metrics.csv", "tensorboard"


def loggers(output: Path, step: int) -> list[Logger]:
    """Return the loggers of the run in ``output``, which goes on from ``step``, 0 where it is new.

    What an earlier process wrote after that step is forgotten: it will be written again.
    """
    columns = _forget_after(output / TABLE, step) if rank_zero_only.rank == 0 else []
    table = CSVLogger(str(output), name="", version="", flush_logs_every_n_steps=1)
    if columns:
        # Lightning deletes the table of an earlier process when it opens its own.
        table.experiment.metrics_keys = columns
        os.replace(_kept(output / TABLE), output / TABLE)
    board = TensorBoardLogger(str(output), name="", version=BOARD, purge_step=step)
    return [table, board]


def _kept(path: Path) -> Path:
    return path.with_name(f".{path.name}.kept")


def _forget_after(path: Path, step: int) -> list[str]:
    """Write the rows before ``step`` of the table, if there is one, beside it, and return its columns."""
    # A process that was killed just here has left them there alone.
    source = path if path.is_file() else _kept(path)
    if not source.is_file():
        return []
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        # The last row of a killed process may lack its end.
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < step]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, _kept(path))
    return columns
