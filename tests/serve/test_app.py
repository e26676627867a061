"""`emadeploy serve` as tritonclient speaks to it, and what it answers to requests that are wrong."""

import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emadeploy import load
from emadeploy.contract.errors import SpecError
from emadeploy.contract.preprocess import preprocess
from emadeploy.serve.app import Limits, make_app
from emadeploy.serve.models import close_models, open_models

uvicorn = pytest.importorskip("uvicorn")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("onnxruntime")
FRAME = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)


class Site:
    """A server on a free port, in a thread."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        token = limits.pop("token", None)
        self.folder = folder
        self.models = open_models([folder], limits.pop("queue", 4))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        app = make_app(self.models, Limits(**limits), token)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{self.address}{path}", body, named)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
        close_models(self.models)


@pytest.fixture
def site(make_artifact: Any) -> Iterator[Site]:
    opened = Site(make_artifact("tiny"), body=1 << 20)
    yield opened
    opened.close()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_tritonclient_gets_what_the_runtime_answers(site: Site, binary: bool, packed: str | None) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(site.address)
    with load(site.folder) as runtime:
        raw = {"image": preprocess(FRAME, runtime.spec.input)}
        for name, key, array, kind, wanted in (
            ("tiny", "frame", FRAME, "UINT8", runtime(FRAME).maps),
            ("tiny.raw", "image", raw["image"], "FP32", runtime.raw(FRAME)),
        ):
            given = http.InferInput(key, list(array.shape), kind)
            given.set_data_from_numpy(array, binary_data=binary)
            outputs = [http.InferRequestedOutput(task, binary_data=binary) for task in wanted]
            answer = client.infer(
                name, [given], outputs=outputs, request_id="7", request_compression_algorithm=packed, model_version="1"
            )
            assert answer.get_response()["id"] == "7"
            for task, expected in wanted.items():
                np.testing.assert_array_equal(answer.as_numpy(task), expected)
    client.close()


def test_tritonclient_reads_what_is_served(site: Site) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(site.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("tiny")["outputs"][1]["parameters"]["unit"] == "metre"
    assert client.get_model_config("tiny")["max_batch_size"] == 0
    assert [entry["name"] for entry in client.get_model_repository_index()] == ["tiny", "tiny.raw"]
    assert client.get_inference_statistics("tiny")["model_stats"][0]["inference_count"] == 0
    assert len(client.get_inference_statistics()["model_stats"]) == 2
    client.close()


def test_a_picture_is_answered_with_its_maps(site: Site) -> None:
    file = io.BytesIO()
    Image.fromarray(FRAME).save(file, "PNG")
    status, body = site.post("/v2/models/tiny/image", file.getvalue())
    assert status == 200
    with load(site.folder) as runtime, np.load(io.BytesIO(body)) as found:
        for task, expected in runtime(FRAME).maps.items():
            np.testing.assert_array_equal(found[task], expected)
    status, body = site.post("/v2/models/tiny/image?picture=all", file.getvalue())
    assert Image.open(io.BytesIO(body)).size == (210, 50)
    assert site.post("/v2/models/tiny/image?picture=edge", file.getvalue())[0] == 400
    assert site.post("/v2/models/tiny/image", file.getvalue()[:200])[0] == 400
    assert site.post("/v2/models/tiny/image", b"GIF89a")[0] == 415


def request(**changes: Any) -> bytes:
    tensor = {"name": "frame", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, request(), {}),
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
    ],
)
def test_a_wrong_request_is_refused_in_words(site: Site, status: int, body: bytes, headers: dict[str, str]) -> None:
    found, answer = site.post("/v2/models/tiny/infer", body, **headers)
    assert found == status
    assert ("error" in json.loads(answer)) == (status != 200)


def test_the_token_is_asked_for(make_artifact: Any) -> None:
    site = Site(make_artifact("tiny"), token="secret")
    try:
        assert site.post("/v2/models/tiny/infer", request())[0] == 401
        assert site.post("/v2/models/tiny/infer", request(), Authorization="Bearer secret")[0] == 200
    finally:
        site.close()


def test_a_full_queue_and_a_slow_engine_are_said(make_artifact: Any) -> None:
    site = Site(make_artifact("tiny"), queue=1, timeout=0.3)
    worker, release = site.models["tiny"].worker, threading.Event()
    try:
        worker.enter()
        worker.submit(lambda _: release.wait(), FRAME)
        assert site.post("/v2/models/tiny/infer", request())[0] == 504
        worker.enter()  # the place of the request that was late
        assert site.post("/v2/models/tiny/infer", request())[0] == 503
        worker.leave()
        release.set()
        assert site.post("/v2/models/nobody/infer", request())[0] == 404
    finally:
        release.set()
        site.close()


def test_names_that_collide_are_refused(make_artifact: Any) -> None:
    folder = make_artifact("tiny")
    with pytest.raises(SpecError, match="two artifacts would be served as 'tiny'"):
        open_models([folder, folder], 4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | st.builds(request, shape=st.lists(st.integers()), data=st.lists(st.floats())))
def test_any_body_is_answered(site: Site, body: bytes) -> None:
    status, answer = site.post("/v2/models/tiny/infer", body)
    assert status == 400
    assert "error" in json.loads(answer)


def test_an_artifact_of_one_frame_size_takes_that_and_refuses_others(make_artifact: Any) -> None:
    site = Site(make_artifact("sized", frame_size=(50, 70)))
    try:
        assert list(site.models) == ["sized"]
        for frame, wanted in ((FRAME, 200), (FRAME[:-1], 400)):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "png")
            status, body = site.post("/v2/models/sized/image", picture.getvalue())
            assert status == wanted, body
        assert "50" in json.loads(body)["error"]
    finally:
        site.close()
