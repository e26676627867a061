"""`emadeploy bench --compare OLD.json NEW.json`: what changed, row by row, for people, for json and as exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from emadeploy.bench.columns import ESTIMATE
from emadeploy.bench.compare import BETTER, FINE, WORSE, Change, Comparison, compare_reports
from emadeploy.bench.report import read_report
from emadeploy.cli.bench_parts.table import broken
from emadeploy.evaluate.records import write_record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters of a name in a line.
_NAMES = 24
_STYLES = {BETTER: "green", WORSE: "red"}


def compare_files(old: Path, new: Path, json_file: Path | None = None, console: Console | None = None) -> None:
    """Compare two reports, print what changed, and write it to ``json_file`` where one is named.

    Raises Exit(1) where a row got worse beyond noise, is missing, has failed, or could not be compared; DataError
    where a file is no report.
    """
    from rich.console import Console
    from rich.text import Text

    comparison = compare_reports(read_report(old), read_report(new))
    if json_file is not None:
        write_record(json_file, {**comparison.to_dict(), "old": str(old), "new": str(new)})
    console = console or Console(highlight=False)
    console.print(_table(comparison))
    for line in _lines(comparison):
        console.print(Text(line))
    if not comparison.fine:
        raise typer.Exit(1)


def _table(comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("what", "old", "new", "new / old", ""):
        table.add_column(head, justify="left" if head in ("what", "") else "right", overflow="fold")
    for row in comparison.rows:
        name = f"{row.name} ({ESTIMATE})" if row.estimate else row.name
        style = _STYLES.get(row.verdict, "" if row.verdict in FINE else "red")
        table.add_row(
            Text(broken(name, _NAMES), style="bold"), "", "", "", Text(row.verdict, style=f"bold {style}".strip())
        )
        for change in row.changes:
            table.add_row(*map(Text, _cells(change)), style=_STYLES.get(change.verdict, ""))
    return table


def _cells(change: Change) -> tuple[str, ...]:
    what = f"  {change.what}{f', {change.unit}' if change.unit else ''}"
    ratio = "" if change.ratio is None else f"{change.ratio:.3f}"
    if change.interval is not None and change.interval[0] != change.interval[1]:
        ratio += f" [{change.interval[0]:.3f}, {change.interval[1]:.3f}]"
    return what, f"{change.old:.5g}", f"{change.new:.5g}", ratio, change.verdict


def _lines(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        if row.reason:
            yield f"{row.name}: {row.verdict}: {row.reason}"
    counts = Counter(row.verdict for row in comparison.rows)
    yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "nothing to compare: no rows"
