"""What several commands share: option types and their parsing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from emadeploy.contract.errors import BackendMissing, SpecError

SourceName = Annotated[
    str | None,
    typer.Argument(metavar="[CHECKPOINT|NAME]", help="[default: the newest under runs/, else emanet-rooms]"),
]
CalibData = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Frames to calibrate with. [default: those bundled for the model]"),
]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Image size, multiples of 32, e.g. 288x384.")]


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) for 'HxW'; raises SpecError for anything else."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise SpecError(f"size {text!r} is not HEIGHTxWIDTH, e.g. 288x384")
    return int(match[1]), int(match[2])


@contextmanager
def requires(what: str, extra: str) -> Iterator[None]:
    """Turn a missing package inside the block into a BackendMissing that carries the line which installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "emadeploy":
            raise
        raise BackendMissing.of(what, str(error.name), extra) from None
