"""Content-Encoding both ways: bodies that arrive compressed, and answers for clients that ask for it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from emadeploy.serve.faults import Fault

#: Content-Encoding -> window bits of zlib; 'deflate' is the format of zlib, as HTTP has it.
_WINDOWS = {"gzip": 31, "deflate": 15}
#: Maps are noise to zlib beyond the first level: slower, and hardly smaller.
_LEVEL = 1


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return ``body`` without its Content-Encoding; Fault 400 for a bad stream, 413 above ``limit`` bytes, else 415."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise Fault(415, f"Content-Encoding {encoding[:40]!r} is not known; send gzip, deflate or none")
    stream = zlib.decompressobj(_WINDOWS[encoding])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Fault(400, f"the body is not {encoding}: {error}") from None
    if len(plain) > limit:
        raise Fault(413, f"the body is larger than {limit} bytes when decompressed")
    if not stream.eof or stream.unused_data:
        raise Fault(400, f"the {encoding} body is cut off, or something follows it")
    return plain


def accepted(header: str) -> str | None:
    """Return the first of gzip and deflate that an Accept-Encoding ``header`` takes; ``None``: neither."""
    for entry in header.lower().split(","):
        name, _, weight = (part.strip() for part in entry.partition(";"))
        if name in _WINDOWS and not re.fullmatch(r"q *= *0(\.0*)?", weight):
            return name
    return None


def compress(parts: Iterable[bytes | memoryview], encoding: str) -> bytes:
    """Return ``parts``, one after the other, in one stream of ``encoding``."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])
