"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from emadeploy.contract.errors import DataError


def write_file(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` in one step: who reads it sees the former file, or all of this one.

    Raises DataError where the place cannot be written; then nothing has changed.
    """
    # A name of this process's own: two that write the same file must not write into one another's.
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
