"""Small files of the system, where each may be missing, unreadable or nonsense: then the answer is ``None``."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str | None:
    """Return the text of a file without blanks around it; ``None`` where it is empty or cannot be read."""
    try:
        # Strings of the device tree end in NUL. A sensor that is switched off answers with an error.
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """Return the whole number that a file holds; ``None`` where it holds something else."""
    try:
        return int(text_of(path) or "")
    except ValueError:
        return None
