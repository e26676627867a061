"""A run of the bench, put together: which of its forms is asked for, and what becomes of the report."""

from __future__ import annotations

from pathlib import Path

import typer

from emadeploy.bench.report import write_report
from emadeploy.bench.rows import Report
from emadeploy.cli.bench_parts.order import BenchOrder


def run(
    order: BenchOrder,
    *,
    host: str | None,
    compare: tuple[Path, Path] | None,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Do what the command line asks for, and show it. Raises EmadeployError, and Exit(1) where a row has failed."""
    if compare is not None:
        from emadeploy.cli.bench_parts.compare import compare_files

        compare_files(*compare, json_file)
        return
    from emadeploy.cli.bench_parts.measuring import measure_here

    _show(measure_here(order), json_file, html_file)


def _show(report: Report, json_file: Path | None, html_file: Path | None) -> None:
    from emadeploy.cli.bench_parts.table import print_report

    if json_file is not None:
        write_report(json_file, report)
    print_report(report)
    if report.failed:
        raise typer.Exit(1)
