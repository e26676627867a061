"""`emadeploy demo`: the main job, end to end, on this machine, without data and without a network connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emadeploy.contract.errors import DataError

_PAGE_NAME = "demo.html"


def command(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="For the artifacts and the page.")
    ] = Path("demo"),
    rooms: Annotated[int, typer.Option(metavar="N", min=1, help="Made rooms, held out, to judge on.")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Random weights, for speed alone.")] = False,
    model: Annotated[str, typer.Option(metavar="NAME|DIR", help="Another model, or a checkpoint.")] = "emanet-rooms",
) -> None:
    """Export the shipped model as published and rewritten, run both, and show what they see. Takes minutes."""
    from rich.console import Console

    from emadeploy.bench.page import write_page
    from emadeploy.cli.demo_parts import stages, table
    from emadeploy.evaluate.records import write_record

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise DataError(f"{json_file.parent} is not a folder; --json needs one that exists")
    found, shown = stages.find_out(model, output, rooms, untrained=untrained)
    facts = table.facts(found)
    write_page(output / _PAGE_NAME, stages.page(found, shown, facts))
    if json_file is not None:
        write_record(json_file, found.to_dict())
    Console().print(table.rich_table(facts, f"{found.spec.name} on {found.machine.get('cpu', 'this machine')}"))
    for line in (*facts.notes, *(f"{row.name}: {output / row.name}" for row in found.rows)):
        print(line)
    print(f"pictures: {output / _PAGE_NAME}")
