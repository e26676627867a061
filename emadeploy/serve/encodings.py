"""What clients say of encodings: bodies that arrive compressed, and what they take as an answer."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

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
    """Return which of gzip and deflate an Accept-Encoding ``header`` names and likes best; ``None``: neither."""
    weights = {name: weight for name, weight in _weights(header).items() if name in _WINDOWS and weight > 0}
    return max(weights, key=weights.__getitem__, default=None)


def chosen(header: str, offered: Sequence[str]) -> str:
    """Return the media type of ``offered`` that an Accept ``header`` likes best, of equals the first.

    No header takes everything. Raises Fault 406 where it takes none of them.
    """
    weights = _weights(header) or {"*/*": 1.0}

    def weight(media_type: str) -> float:
        ranges = (media_type, f"{media_type.split('/')[0]}/*", "*/*")  # the closest range counts
        return next((weights[one] for one in ranges if one in weights), 0.0)

    best = max(offered, key=weight)
    if weight(best) == 0:
        raise Fault(406, f"Accept {header[:80]!r} takes nothing that there is here: {', '.join(offered)}")
    return best


def compress(parts: Iterable[bytes | memoryview], encoding: str) -> bytes:
    """Return ``parts``, one after the other, in one stream of ``encoding``."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])


def _weights(header: str) -> dict[str, float]:
    """Return name -> q, 0 to 1, of each entry of an Accept header; what is malformed is left out."""
    found: dict[str, float] = {}
    for entry in header.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        given = [part.partition("=")[2].strip() for part in parameters if part.partition("=")[0].strip() == "q"]
        weight = given[0] if given else "1"
        if name and re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", weight):
            found[name] = float(weight)
    return found
