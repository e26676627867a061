"""Servers for the tests of serving."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def open_site(make_artifact: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    """Return a function that serves an artifact (keywords: limits, queue, token) and ends when the test does."""
    from site_of import Site

    opened: list[Any] = []

    def open_one(folder: Path | None = None, **limits: Any) -> Any:
        opened.append(Site(folder or make_artifact("tiny"), **limits))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def site(open_site: Callable[..., Any]) -> Any:
    """Serve an artifact with bodies of at most 1 MiB."""
    return open_site(body=1 << 20)
