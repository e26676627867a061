"""Where losses and metrics are written: a table, `metrics.csv`, and TensorBoard's files with the same in them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

TABLE, BOARD = "metrics.csv", "tensorboard"


def loggers(output: Path, step: int) -> list[Logger]:
    """Return the loggers of the run in ``output``, which goes on from ``step``, 0 where it is new.

    What an earlier process wrote after that step is forgotten: it will be written again.
    """
    table = CSVLogger(str(output), name="", version="", flush_logs_every_n_steps=1)
    # Lightning takes the columns of a table that is there for unknown ones, and fails on them.
    table.experiment.metrics_keys = _forget_after(output / TABLE, step) if step else []
    board = TensorBoardLogger(str(output), name="", version=BOARD, purge_step=step or None)
    return [table, board]


def _forget_after(path: Path, step: int) -> list[str]:
    """Leave the rows before ``step`` in the table, and return its columns."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        # The last row of a killed process may lack its end.
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < step]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
    return columns
