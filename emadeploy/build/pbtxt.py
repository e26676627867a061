"""Protocol buffers in their text format, as far as configurations need it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Symbol:
    """The name of an enum's value, which stands without quotes."""

    name: str


def text_format(message: Mapping[str, Any]) -> str:
    """Return ``message`` in text format: mappings are messages, sequences repeated fields, one line each."""
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for item in value if repeated else (value,):
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: str | int | Symbol) -> str:
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's escapes are those of the text format, as long as what is not ASCII is left as it is.
    return json.dumps(value, ensure_ascii=False)
