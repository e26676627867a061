"""Where everything is kept that can be made again: rendered rooms, ranges, references, compiled engines."""

from __future__ import annotations

import os
from pathlib import Path

from emadeploy.contract.errors import DataError

CACHE_VARIABLE = "EMADEPLOY_CACHE"
#: What to do where the cache cannot be written, at the end of a message.
CHOOSE_CACHE = f"${CACHE_VARIABLE} chooses the place"


def default_cache_dir() -> Path:
    """Return ``$EMADEPLOY_CACHE``, or ``~/.cache/emadeploy``; raises DataError where there is no home folder."""
    root = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/emadeploy")
    try:
        return root.expanduser()
    except RuntimeError as error:
        raise DataError(f"the cache {root} cannot be found: {error}; {CHOOSE_CACHE}") from None
