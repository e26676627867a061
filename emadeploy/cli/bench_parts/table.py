"""The report of a bench for the terminal: one table where it fits, else several below each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from emadeploy.bench.columns import Column, columns, milliseconds, names, notes
from emadeploy.bench.rows import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Between two columns, and at both edges of a table together.
_GAP, _EDGES = 2, 2
#: What names get at least, before they are broken into lines.
_NAMES = 24
#: Layers below the branches, those that take most time.
_SLOWEST = 8


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables of ``report``, the notes under them, and times by layer, as wide as the terminal is."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    for table in tables(report, console.width):
        console.print(table)
    for note in notes(report):
        # Text, because names and paths may hold the brackets of rich's markup.
        console.print(Text(note))
    for table in layer_tables(report):
        console.print(table)
    for note in dict.fromkeys(row.layers["note"] for row in report.rows if row.layers):
        console.print(Text(note))


def layer_tables(report: Report) -> Iterator[Table]:
    """Yield, for each row that has them, the time of each branch and the layers that take most of it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for row in report.rows:
        if not row.layers:
            continue
        total = row.layers["total_ms"] or 1.0
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        table.add_column(Text(f"{row.name}: where the time goes"), overflow="fold", vertical="bottom")
        for head in ("layers", "ms", "share"):
            table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
        for branch in row.layers["branches"]:
            count, time, share = str(branch["layers"]), milliseconds(branch["ms"]), f"{branch['ms'] / total:.1%}"
            table.add_row(*map(Text, (branch["branch"], count, time, share)))
        table.add_section()
        for layer in row.layers["layers"][:_SLOWEST]:
            name = f"{layer['name']} ({layer['kind']}, {layer['precision']})"
            table.add_row(*map(Text, (name, "", milliseconds(layer["ms"]), f"{layer['ms'] / total:.1%}")))
        yield table


def tables(report: Report, width: int) -> Iterator[Table]:
    """Yield tables that fit in ``width`` characters; each begins with the names. No number is ever cut or broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    room = max(_NAMES, width // 4)
    lines = [broken(name, room) for name in names(report)]
    room = max((len(line) for name in lines for line in name.split("\n")), default=0)
    for part in _parts(columns(report), width - room - _EDGES):
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        table.add_column("engine", vertical="bottom", no_wrap=True)
        for column in part:
            table.add_column("\n".join(column.head), justify="right", no_wrap=True, vertical="bottom")
        for index, name in enumerate(lines):
            row = report.rows[index]
            style = "red" if not row.measured else "italic" if row.estimate else "yellow" if row.unstable else ""
            table.add_row(*map(Text, (name, *(column.cells[index] for column in part))), style=style)
        yield table


def broken(name: str, room: int) -> str:
    """Return ``name`` in lines of at most ``room`` characters, broken behind spaces and points where there are any."""
    lines = [""]
    for piece in re.findall(r"[^\s./:_-]*[\s./:_-]*", name):
        if len((lines[-1] + piece).rstrip()) > room and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line[start : start + room] for line in lines for start in range(0, max(1, len(line)), room))


def _parts(found: Sequence[Column], room: int) -> list[list[Column]]:
    """Return the columns in as few parts as fit into ``room`` each, in their order."""
    parts: list[list[Column]] = [[]]
    left = room
    for column in found:
        needed = max(map(len, (*column.head, *column.cells))) + _GAP
        if needed > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= needed
    return parts
