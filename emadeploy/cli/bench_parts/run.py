"""A run of the bench, put together: which of its forms is asked for, and what becomes of the report."""

from __future__ import annotations

from pathlib import Path

import typer

from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.contract.errors import SpecError


def run(
    order: BenchOrder,
    *,
    host: str | None,
    compare: tuple[Path, Path] | None,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Do what the command line asks for, and show it. Raises EmadeployError, and Exit(1) where a row has failed."""
    if order.percentile not in (None, 50, 90, 99):
        raise SpecError(f"--percentile {order.percentile} is unknown; known: 50, 90, 99")
    raise typer.Exit(1)
