"""The messages of the Open Inference Protocol: bytes to arrays and back, with every malformed request a Fault 400."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.serve.faults import Fault

Array = npt.NDArray[Any]
Bytes = bytes | memoryview
HEADER = "Inference-Header-Content-Length"
#: Name in the protocol -> little-endian numpy type. No artifact takes or answers another.
TYPES = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
NAMES = {"uint8": "UINT8", "float32": "FP32"}
#: JSON may be this share of the largest body, 16 MiB of 64, and have so many lists, objects and quotes.
_JSON_SHARE, _JSON_PARTS = 4, 1 << 20
#: Bytes of a float32 in JSON, with its comma.
_JSON_NUMBER = 21


@dataclass(frozen=True)
class Tensor:
    """An input or output of a served model; -1 in ``shape`` is any extent."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Query:
    """An inference request: the input's array, the outputs wanted with whether each is binary, and its id."""

    array: Array
    wanted: Mapping[str, bool]
    id: str | None


def read_query(body: bytes, header: str | None, expected: Tensor, outputs: tuple[Tensor, ...], limit: int) -> Query:
    """Return what ``body`` asks; ``header`` is the value of HEADER, ``limit`` the most bytes of an array or answer."""
    length = _header_length(header, len(body))
    message = _message(memoryview(body)[:length], limit)
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Fault(400, f"'inputs' must be a list of one tensor, {expected.name!r}")
    array = _array(inputs[0], memoryview(body)[length:], expected, limit)
    identity = message.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Fault(400, "'id' is not a text")
    return Query(array, _wanted(message, outputs), identity)


def check_answer(query: Query, outputs: tuple[Tensor, ...], limit: int) -> None:
    """Raise Fault 400 where the answer's numbers in JSON would be more than ``limit`` bytes: known before it is made.

    An extent that a model leaves open is that of the frame asked about.
    """
    numbers = 0
    for tensor in outputs:
        if query.wanted.get(tensor.name) is False:
            numbers += math.prod(
                query.array.shape[axis] if extent == -1 else extent for axis, extent in enumerate(tensor.shape)
            )
    if numbers * _JSON_NUMBER > limit:
        raise Fault(400, f"the answer's {numbers} numbers are too many for JSON; ask for 'binary_data' outputs")


def write_answer(arrays: Mapping[str, Array], query: Query, model: str) -> tuple[list[Bytes], bool]:
    """Return the body of an answer, JSON and then the tensors themselves, and whether there are binary ones.

    Raises Fault 400 where JSON is asked for numbers that it has no way to write.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[Bytes] = []
    for name, binary in query.wanted.items():
        array = arrays[name]
        datatype = NAMES[array.dtype.name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if binary:
            blobs.append(np.ascontiguousarray(array, TYPES[datatype]).data.cast("B"))
            entry["parameters"] = {"binary_data_size": array.nbytes}
        elif not np.isfinite(array).all():
            raise Fault(400, f"output {name!r} holds NaN or infinity, which JSON does not have; ask for 'binary_data'")
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    answer = {"model_name": model, "model_version": "1", "outputs": entries}
    if query.id is not None:
        answer["id"] = query.id
    text = json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
    return [text, *blobs], bool(blobs)


def _header_length(header: str | None, total: int) -> int:
    if header is None:
        return total
    if not (header.isascii() and header.isdigit() and len(header) < 12) or int(header) > total:
        raise Fault(400, f"{HEADER} {header[:40]!r} is no count within the body of {total} bytes")
    return int(header)


def _message(text: memoryview, limit: int) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    # Python's objects are up to thirty times their text: what is no number in a list is counted before any is made.
    if len(text) * _JSON_SHARE > limit:
        raise Fault(413, f"{len(text)} bytes of JSON are more than {limit // _JSON_SHARE}; send binary tensors")
    plain = bytes(text)
    if sum(plain.count(mark) for mark in (b"[", b"{", b'"')) > _JSON_PARTS:
        raise Fault(400, f"the JSON has more than {_JSON_PARTS} parts; send 'data' as one flat list, or binary tensors")
    try:
        message = json.loads(plain, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Fault(400, f"the request is not JSON: {str(error)[:120]}") from None
    if not isinstance(message, dict):
        raise Fault(400, "the request is JSON, but no object")
    return message


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Fault(400, "'parameters' is no object")
    return parameters


def _flag(entry: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _parameters(entry).get(name, default)
    if not isinstance(value, bool):
        raise Fault(400, f"parameter {name!r} is neither true nor false")
    return value


def _wanted(message: Mapping[str, Any], outputs: tuple[Tensor, ...]) -> dict[str, bool]:
    default = _flag(message, "binary_data_output", False)
    names = [tensor.name for tensor in outputs]
    listed = message.get("outputs") or [{"name": name} for name in names]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise Fault(400, "'outputs' must be a list of objects")
    wanted: dict[str, bool] = {}
    for entry in listed:
        name = entry.get("name")
        if name not in names or name in wanted:
            raise Fault(400, f"output {str(name)[:40]!r} is unknown or asked for twice; there are {', '.join(names)}")
        for other in ("classification", "shared_memory_region"):
            if other in _parameters(entry):
                raise Fault(400, f"{other!r} is not offered: the outputs are maps, in the answer")
        wanted[name] = _flag(entry, "binary_data", default)
    return wanted


def _array(entry: Mapping[str, Any], blob: memoryview, expected: Tensor, limit: int) -> Array:
    shape = entry.get("shape")
    if entry.get("name") != expected.name or entry.get("datatype") != expected.datatype:
        raise Fault(400, f"the input must be {expected.name!r} of datatype {expected.datatype}")
    fits = isinstance(shape, list) and len(shape) == len(expected.shape)
    if not fits or not all(type(n) is int and n > 0 and w in (-1, n) for n, w in zip(shape, expected.shape)):  # noqa: B905
        raise Fault(400, f"input {expected.name!r} has shape {str(shape)[:80]}; expected {list(expected.shape)}")
    dtype = TYPES[expected.datatype]
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise Fault(400, f"input {expected.name!r} of shape {str(shape)[:80]} is larger than {limit} bytes")
    promised = _parameters(entry).get("binary_data_size")
    if promised is None:
        if blob:
            raise Fault(400, f"{len(blob)} bytes follow the JSON, which no input claims")
        array = _from_list(entry.get("data"), dtype, shape)
    else:
        if type(promised) is not int or promised != size or len(blob) != size or "data" in entry:
            raise Fault(
                400, f"{len(blob)} binary bytes, 'binary_data_size' {str(promised)[:20]!r}; the shape asks {size}"
            )
        array = np.frombuffer(blob, dtype)
    return array.reshape(shape)


def _from_list(data: object, dtype: np.dtype[Any], shape: list[int]) -> Array:
    values, extents = data, []
    while isinstance(values, list) and values and all(type(value) is list for value in values):
        extents.append(len(values))
        if len(extents) == len(shape) or len({len(value) for value in values}) > 1:
            raise Fault(400, f"'data' is neither flat nor nested as shape {shape}")
        values = list(chain.from_iterable(values))
    integers = dtype.kind == "u"
    # Never an array of whatever there is: among numbers, one long text would be as long in every place.
    numbers = isinstance(values, list) and {type(value) for value in values} <= ({int} if integers else {int, float})
    if not numbers or len(values) != math.prod(shape) or extents not in ([], shape[:-1]):
        raise Fault(400, f"'data' is not {math.prod(shape)} numbers of the input's datatype, flat or as shape {shape}")
    if integers and (min(values) < 0 or max(values) > 255):
        raise Fault(400, "'data' holds values outside 0 to 255")
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused by the runtime
            return np.array(values, np.uint8 if integers else np.float64).astype(dtype)
    except OverflowError:
        raise Fault(400, "'data' holds numbers that no float32 holds") from None
