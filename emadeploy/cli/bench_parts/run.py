"""A run of the bench, put together: which of its forms is asked for, and what becomes of the report."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from emadeploy.bench.remote.job import FROM_DESK
from emadeploy.bench.report import write_report
from emadeploy.bench.rows import Report
from emadeploy.cli.bench_parts.order import BenchOrder
from emadeploy.cli.progress import progress
from emadeploy.contract.errors import SpecError
from emadeploy.runtime.machine import describe_machine


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

        _alone("--compare", order, host, html_file)
        compare_files(*compare, json_file)
        return
    report = _report(order, host)
    if json_file is not None:
        write_report(json_file, report)
    if html_file is not None:
        from emadeploy.cli.bench_parts.html import write_html

        with progress("drawing the page") as bar:
            write_html(html_file, report, order.data, bar)
    _show(report)
    for path in (json_file, html_file):
        if path is not None:
            print(f"written: {path}")
    if report.failed:
        raise typer.Exit(1)


def _report(order: BenchOrder, host: str | None) -> Report:
    """Return what is measured here or on ``host``, or estimated for a device that is not here."""
    if host is not None:
        from emadeploy.cli.bench_parts.remote import measure_there

        return measure_there(host, order)
    from emadeploy.cli.bench_parts.estimates import estimate_rows, is_estimate

    if is_estimate(order.device):
        order.check_estimate()
        return Report(describe_machine(), order.to_dict(), estimate_rows(order.device, order.artifacts))
    from emadeploy.cli.bench_parts.measuring import measure_here

    return measure_here(order)


def _show(report: Report) -> None:
    if os.environ.get(FROM_DESK):
        return
    from emadeploy.cli.bench_parts.estimates import print_estimates
    from emadeploy.cli.bench_parts.table import print_report

    if report.rows and all(row.estimate for row in report.rows):
        print_estimates(report.rows)
    else:
        print_report(report)


def _alone(flag: str, order: BenchOrder, host: str | None, html_file: Path | None) -> None:
    if order != BenchOrder() or host is not None or html_file is not None:
        raise SpecError(f"{flag} measures nothing: of the other options it goes with --json alone")
