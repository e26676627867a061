"""Requests that are wrong: each gets a status from 400 on and {"error": ...}, and the server goes on."""

import gzip
import io
import json
import resource
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from site_of import FRAME, Site, request, wait_until

Image = pytest.importorskip("PIL.Image")
Open = Callable[..., Site]


def binary(size: object = 3, blob: bytes = b"abc", **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Return an inference request in binary, and its header."""
    tensor = {"name": "frame", "datatype": "UINT8", "shape": [1, 1, 3], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [{**tensor, **changes}]}).encode()
    return text + blob, {"Inference-Header-Content-Length": str(len(text))}


def outputs(*entries: object) -> bytes:
    """Return an inference request for outputs."""
    return json.dumps({**json.loads(request()), "outputs": entries}).encode()


WRONG = [
    (400, b"", {}),
    (400, b"{", {}),
    (400, b"[" * 100_000, {}),
    (400, b"[]", {}),
    (400, request(name="image"), {}),
    (400, request(datatype="FP32"), {}),
    (400, request(shape=[1 << 40, 1 << 40, 3]), {}),
    (400, request(shape=[1, -1, 3]), {}),
    (400, request(shape=[True, 1, 3]), {}),
    (400, request(data=[1, 2]), {}),
    (400, request(data=[1, [2], 3]), {}),
    (400, request(data=[1, 2, 256]), {}),
    (400, request(data=[1, 2, float("nan")]), {}),
    (400, request(parameters={"binary_data_size": 3}), {}),
    (400, request(), {"Inference_Header_Content_Length": "9999"}),
    (400, request(), {"Inference_Header_Content_Length": "-1"}),
    (400, b"no gzip", {"Content_Encoding": "gzip"}),
    (400, zlib.compress(request())[:-6], {"Content_Encoding": "deflate"}),
    (413, zlib.compress(bytes(2 << 20)), {"Content_Encoding": "deflate"}),
    (415, request(), {"Content_Encoding": "br"}),
    (413, bytes(2 << 20), {}),
    (415, b"GIF89a", {"Content_Encoding": "gzip, gzip"}),
    (413, gzip.compress(bytes(2 << 20)), {"Content_Encoding": "gzip"}),
    (400, gzip.compress(request()) + b"more", {"Content_Encoding": "gzip"}),
    (400, zlib.compress(request()), {"Content_Encoding": "gzip"}),
    (413, b'{"inputs": [' + b"1," * (1 << 17) + b"1]}", {}),
    (400, request(), {"Inference_Header_Content_Length": "9" * 5000}),
    (400, request(), {"Inference_Header_Content_Length": "\xb2"}),
    (400, request(name="\ud800"), {}),
    (400, request(shape=["\ud800", 1, 3]), {}),
    (400, request(data=[[[1, 2, 3]]], shape=[1, 1, 3, 1]), {}),
    (400, request(data=[[1, 2, 3]]), {}),
    (400, request(data=[[[1], [2], [3]]]), {}),
    (400, request(data=[[[[1, 2, 3]]]]), {}),
    (400, request(data=[[[1, 2], [3]]]), {}),
    (400, request(data=[True, 2, 3]), {}),
    (400, request(data=[1.0, 2, 3]), {}),
    (400, request(data=["1", 2, 3]), {}),
    (400, request(data=[None, 2, 3]), {}),
    (400, request(data=[{}, 2, 3]), {}),
    (400, request(data=[1, 2, 10**400]), {}),
    (400, request(data={}), {}),
    (400, request(data=[]), {}),
    (400, request(parameters=[]), {}),
    (400, request(parameters={"binary_data_size": "\ud800"}), {}),
    (400, json.dumps({"inputs": []}).encode(), {}),
    (400, json.dumps({"inputs": [json.loads(request())["inputs"][0]] * 2}).encode(), {}),
    (400, json.dumps({**json.loads(request()), "id": 7}).encode(), {}),
    (400, outputs({"name": "edge"}), {}),
    (400, outputs({"name": ["depth"]}), {}),
    (400, outputs({"name": "depth"}, {"name": "depth"}), {}),
    (400, outputs(7), {}),
    (400, outputs({"name": "depth", "parameters": {"binary_data": 1}}), {}),
    (400, outputs({"name": "semseg", "parameters": {"classification": 3}}), {}),
    (400, outputs({"name": "depth", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}}), {}),
    (400, *binary(size=2)),
    (400, *binary(size=True)),
    (400, *binary(blob=b"ab")),
    (400, *binary(blob=b"abcd")),
    (400, *binary(data=[1, 2, 3])),
    (400, *binary(size=3 << 40, shape=[1 << 20, 1 << 20, 3])),
]


def test_a_wrong_request_is_refused_in_words(site: Site) -> None:
    assert site.post("/v2/models/tiny/infer", request())[0] == 200
    body, header = binary()
    assert site.post("/v2/models/tiny/infer", body, **header)[0] == 200
    for status, body, headers in WRONG:
        found, answer = site.post("/v2/models/tiny/infer", body, **headers)
        assert found == status, (body[:200], headers, answer)
        assert list(json.loads(answer)) == ["error"]
    assert site.post("/v2/models/tiny/infer", request())[0] == 200


ABSENT = [
    ("/v2/models/nobody/infer", b"", 404),
    ("/v2/models/tiny/versions/2/infer", b"", 404),
    ("/v2/models/tiny.raw/image", b"", 404),
    ("/v2/models/tiny/image?picture=edge", b"", 400),
    ("/v2/models/tiny/image", b"GIF89a", 415),
    ("/v2/models/tiny", b"", 405),
    ("/v2/models/tiny/infer", None, 405),
    ("/v2/", None, 404),
    ("/%ff%00/%2e%2e", None, 404),
    ("/v2/repository/index", bytes(1 << 17), 413),
    ("/v2/systemsharedmemory/status", None, 404),
]


def test_what_is_not_there_is_said(site: Site) -> None:
    for path, body, status in ABSENT:
        found, _, answer = site.ask(path, body)
        assert found == status, path
        assert list(json.loads(answer)) == ["error"]


def test_pictures_and_frames_have_so_many_pixels(open_site: Open) -> None:
    site = open_site(pixels=50 * 70)
    for frame, status in ((FRAME, 200), (np.zeros((51, 70, 3), np.uint8), 413)):
        for kind in ("png", "jpeg"):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, kind)
            assert site.post("/v2/models/tiny/image", file.getvalue())[0] == status
    frame = np.zeros((51, 70, 3), np.uint8)
    found, answer = site.post("/v2/models/tiny/infer", request(shape=[51, 70, 3], data=frame.ravel().tolist()))
    assert found == 400
    assert "more than 3500 pixels" in json.loads(answer)["error"]
    file = io.BytesIO()
    Image.fromarray(FRAME).save(file, "png")
    status, answer = site.post("/v2/models/tiny/image", file.getvalue()[:-3000])
    assert (status, "broken" in json.loads(answer)["error"]) == (400, True)


def png(height: int, width: int) -> bytes:
    """Return the head of a PNG in RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IEND", b"")
    )


def test_pictures_that_pillow_itself_finds_too_large_are_413(site: Site) -> None:
    status, answer = site.post("/v2/models/tiny/image", png(30_000, 30_000))
    assert (status, "resize it" in json.loads(answer)["error"]) == (413, True)


def test_a_picture_of_16_bits_is_refused(site: Site) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(file, "PNG")
    status, answer = site.post("/v2/models/tiny/image", file.getvalue())
    assert (status, "16 bits" in json.loads(answer)["error"]) == (415, True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_write_is_refused_and_binary_takes_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    runtime = site.worker.runtime

    def infer(tensors: Any) -> dict[str, Any]:
        return {output.name: np.full((1, 1), value, np.float32) for output in site.models["tiny.raw"].outputs}

    monkeypatch.setattr(runtime, "infer", infer)
    given = site.models["tiny.raw"].input
    asked = {"name": "image", "datatype": "FP32", "shape": given.shape, "data": [0] * int(np.prod(given.shape))}
    status, answer = site.post("/v2/models/tiny.raw/infer", json.dumps({"inputs": [asked]}).encode())
    assert (status, "ask for 'binary_data'" in json.loads(answer)["error"]) == (400, True)
    message = {"inputs": [asked], "parameters": {"binary_data_output": True}}
    assert site.post("/v2/models/tiny.raw/infer", json.dumps(message).encode())[0] == 200
    wait_until(lambda: site.worker.taken == 0)


def test_an_answer_too_large_for_json_is_refused_before_it_is_made(open_site: Open) -> None:
    site = open_site(body=1 << 20)
    frame = np.zeros((110, 100, 3), np.uint8)
    body, header = binary(size=frame.nbytes, blob=frame.tobytes(), shape=list(frame.shape))
    status, answer = site.post("/v2/models/tiny/infer", body, **header)
    assert status == 400
    assert "ask for 'binary_data' outputs" in json.loads(answer)["error"]
    assert site.models["tiny"].counts.success == 0


def test_nothing_that_is_small_grows(open_site: Open) -> None:
    site = open_site(body=16 << 20)
    length = 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in (
        request(data=["x" * length, *[1] * 5000]),
        request(data=[[]] * (length >> 1)),
        b'{"inputs": [' + b"{}," * (length >> 1) + b"{}]}",
        b"[" * length + b"]" * length,
    ):
        assert site.post("/v2/models/tiny/infer", bomb)[0] == 400
    for packed in (gzip.compress(bytes(64 << 20), 1), gzip.compress(b"[" * (17 << 20), 1)):
        assert site.post("/v2/models/tiny/infer", packed, Content_Encoding="gzip")[0] == 413
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    )  # KiB; the first alone would be 20 GB


SHAPES = st.lists(st.integers(-(2**70), 2**70) | st.booleans() | st.text(max_size=3), max_size=4)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "inputs": ANY_JSON
        | st.lists(
            st.fixed_dictionaries(
                {"name": st.just("frame") | ANY_JSON, "datatype": st.just("UINT8") | ANY_JSON},
                optional={"shape": SHAPES, "data": ANY_JSON, "parameters": ANY_JSON},
            ),
            max_size=2,
        ),
        "outputs": ANY_JSON,
        "id": ANY_JSON,
        "parameters": ANY_JSON,
    },
)
HEADERS = st.dictionaries(
    st.sampled_from(["Inference-Header-Content-Length", "Content-Encoding", "Accept-Encoding", "Authorization", "X"]),
    st.sampled_from(
        ["", "0", "5", "-1", "1e9", "gzip", "deflate", "identity", "br", "\xe9", "gzip;q=x", ",;,=", "9" * 40]
    ),
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    body=st.binary(max_size=200)
    | MESSAGES.map(lambda message: json.dumps(message).encode())
    | MESSAGES.map(lambda message: gzip.compress(json.dumps(message).encode())),
    headers=HEADERS,
    path=st.sampled_from(["infer", "image", "versions/1/infer", "image?picture=all"]),
)
@example(body=b"", headers={}, path="infer")
def test_any_message_is_answered(site: Site, body: bytes, headers: dict[str, str], path: str) -> None:
    status, answer = site.post(f"/v2/models/tiny/{path}", body, **headers)
    assert 400 <= status < 500, answer
    assert list(json.loads(answer)) == ["error"]
