"""The messages of the Open Inference Protocol: bytes to arrays and back, with every malformed request a Fault 400."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emadeploy.serve.faults import Fault

Array = npt.NDArray[Any]
HEADER = "Inference-Header-Content-Length"
#: Name in the protocol -> little-endian numpy type. No artifact takes or answers another.
TYPES = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
NAMES = {"uint8": "UINT8", "float32": "FP32"}


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


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return ``body`` without its Content-Encoding; Fault 400 for a bad stream, 413 above ``limit`` bytes, else 415."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Fault(415, f"Content-Encoding {encoding[:40]!r} is not known; send gzip, deflate or none")
    stream = zlib.decompressobj(47)  # gzip or zlib, told apart by the header
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Fault(400, f"the body is not {encoding}: {error}") from None
    if len(plain) > limit:
        raise Fault(413, f"the body is larger than {limit} bytes when decompressed")
    if not stream.eof or stream.unused_data:
        raise Fault(400, f"the {encoding} body is cut off, or something follows it")
    return plain


def read_query(body: bytes, header: str | None, expected: Tensor, outputs: tuple[Tensor, ...], limit: int) -> Query:
    """Return what ``body`` asks; ``header`` is the value of HEADER, ``limit`` the most bytes of an array."""
    length = _header_length(header, len(body))
    message = _message(body[:length])
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Fault(400, f"'inputs' must be a list of one tensor, {expected.name!r}")
    array = _array(inputs[0], memoryview(body)[length:], expected, limit)
    identity = message.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Fault(400, "'id' is not a text")
    return Query(array, _wanted(message, outputs), identity)


def write_answer(arrays: Mapping[str, Array], query: Query, model: str) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where binary tensors follow it."""
    entries, blobs = [], []
    for name, binary in query.wanted.items():
        array = arrays[name]
        datatype = NAMES[array.dtype.name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if binary:
            blobs.append(np.ascontiguousarray(array, TYPES[datatype]).data.cast("B"))
            entry["parameters"] = {"binary_data_size": array.nbytes}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    answer = {"model_name": model, "model_version": "1", "outputs": entries}
    if query.id is not None:
        answer["id"] = query.id
    text = json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def _header_length(header: str | None, total: int) -> int:
    if header is None:
        return total
    if not (header.isascii() and header.isdigit() and len(header) < 12) or int(header) > total:
        raise Fault(400, f"{HEADER} {header[:40]!r} is no count within the body of {total} bytes")
    return int(header)


def _message(text: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        message = json.loads(text, parse_constant=refuse)
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
        if "classification" in _parameters(entry):
            raise Fault(400, "'classification' is not offered: the outputs are maps")
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
        array = _from_list(entry.get("data"), dtype, math.prod(shape))
    else:
        if type(promised) is not int or promised != size or len(blob) != size or "data" in entry:
            raise Fault(
                400, f"{len(blob)} binary bytes, 'binary_data_size' {str(promised)[:20]}; the shape asks {size}"
            )
        array = np.frombuffer(blob, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise Fault(400, f"input {expected.name!r} holds values that are not finite")
    return array.reshape(shape)


def _from_list(data: object, dtype: np.dtype[Any], count: int) -> Array:
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise Fault(400, f"'data' is no regular list of numbers: {str(error)[:80]}") from None
    if values.size != count or values.dtype.kind not in ("iu" if dtype.kind == "u" else "iuf"):
        raise Fault(400, f"'data' is not {count} numbers of the input's datatype")
    if dtype.kind == "u" and (values.min() < 0 or values.max() > 255):
        raise Fault(400, "'data' holds values outside 0 to 255")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused by the caller
        return values.astype(dtype).ravel()
