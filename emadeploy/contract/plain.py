"""Plain data (json, yaml) into frozen dataclasses and back, refusing what does not fit with its path."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from emadeploy.contract.errors import SpecError

_Spec = TypeVar("_Spec")
#: Annotation of a plain field -> its type, and what messages call it.
_PLAIN = {"str": (str, "text"), "int": (int, "an int"), "float": (float, "a number"), "bool": (bool, "true or false")}


@contextmanager
def spec_path(where: str) -> Iterator[None]:
    """Prefix every :class:`SpecError` that leaves the block with ``where``."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def require(condition: bool, message: str) -> None:
    """Raise SpecError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise SpecError(message)


def one_of(what: str, value: object, known: Sequence[str]) -> None:
    """Raise SpecError naming the ``known`` values unless ``value`` is one of them."""
    require(value in known, f"{what} {value!r} is unknown; known: {', '.join(known)}")


def to_plain(spec: Any) -> dict[str, Any]:
    """Return a dataclass as plain data: mappings, lists, str, int, float, bool, None."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    data: dict[str, Any] = plain(dataclasses.asdict(spec))
    return data


def as_mapping(what: str, data: object) -> Mapping[str, Any]:
    """Return ``data``, called ``what`` in messages; raises SpecError unless it is a mapping."""
    if not isinstance(data, Mapping):
        raise SpecError(f"{what} is not a mapping but {type(data).__name__}")
    return data


def as_list(what: str, data: object) -> Sequence[Any]:
    """Return ``data``, called ``what`` in messages; raises SpecError unless it is a list or a tuple."""
    if not isinstance(data, (list, tuple)):
        raise SpecError(f"{what} is not a list but {type(data).__name__}")
    return data


def is_a(kind: type, value: object) -> bool:
    """Like isinstance, with an int for a float, and without a bool for an int."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def known_fields(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``data``, whose keys are fields of ``cls`` and whose plain values are of the fields' types."""
    known = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    unknown = [key for key in data if key not in known]
    require(not unknown, f"unknown field {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    for name, value in data.items():
        annotation, _, optional = known[name].partition(" | ")
        if annotation in _PLAIN and not (optional and value is None):
            kind, called = _PLAIN[annotation]
            hint = " (in YAML, write 1.0e-4 for 1e-4)" if kind is float and isinstance(value, str) else ""
            require(is_a(kind, value), f"{name} {value!r} is not {called}{hint}")
    return dict(data)


def make(cls: type[_Spec], values: dict[str, Any]) -> _Spec:
    """Call the constructor; a missing or wrongly typed field is a SpecError, not a TypeError."""
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(str(error).replace("__init__() ", "").replace(f"{cls.__name__}.", "")) from None
