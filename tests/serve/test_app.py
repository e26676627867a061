"""`emadeploy serve` as tritonclient speaks to it, and what it answers to requests that are wrong."""

import io
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from site_of import FRAME, Site, request

from emadeploy import load
from emadeploy.contract.errors import SpecError
from emadeploy.contract.preprocess import preprocess
from emadeploy.serve.encodings import accepted, chosen, compress, decompress
from emadeploy.serve.faults import Fault
from emadeploy.serve.models import open_models
from emadeploy.serve.pictures import read_picture

Image = pytest.importorskip("PIL.Image")
Open = Callable[..., Site]


def test_tritonclient_gets_what_the_runtime_answers(open_site: Open) -> None:
    http = pytest.importorskip("tritonclient.http")
    site = open_site()
    client = http.InferenceServerClient(site.address)
    with load(site.folder) as runtime:
        image = preprocess(FRAME, runtime.spec.input)
        cases = (
            ("tiny", "frame", FRAME, "UINT8", runtime(FRAME).maps),
            ("tiny.raw", "image", image, "FP32", runtime.raw(FRAME)),
        )
    for binary, packed, (name, key, array, kind, wanted) in product((True, False), (None, "gzip", "deflate"), cases):
        given = http.InferInput(key, list(array.shape), kind)
        given.set_data_from_numpy(array, binary_data=binary)
        outputs = [http.InferRequestedOutput(task, binary_data=binary) for task in wanted]
        answer = client.infer(
            name,
            [given],
            outputs=outputs,
            request_id="7",
            model_version="1",
            request_compression_algorithm=packed,
            response_compression_algorithm=packed,
        )
        assert answer.get_response()["id"] == "7"
        for task, expected in wanted.items():
            np.testing.assert_array_equal(answer.as_numpy(task), expected)
    client.close()


@pytest.mark.parametrize(
    ("asked", "found"),
    [("gzip", "gzip"), ("br, deflate;q=0.5", "deflate"), ("gzip;q=0, deflate;q=0.0", None), ("br", None), ("", None)]
    + [("gzip;q=0.1, deflate", "deflate"), ("GZIP ; q=1.000", "gzip"), ("gzip;q=x, *", None)],
)
def test_an_answer_is_compressed_as_the_client_asks(asked: str, found: str | None) -> None:
    assert accepted(asked) == found
    if found is not None:
        assert decompress(compress([b"one", b"two"], found), found, 6) == b"onetwo"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", "application/x-npz"),
        ("*/*", "application/x-npz"),
        ("image/png", "image/png"),
        ("image/avif, image/*;q=0.9", "image/png"),
        ("Image/PNG; q=0.5, application/x-npz;q=0.4", "image/png"),
        ("image/png;level=1;q=0.5, */*;q=0.8", "application/x-npz"),
        ("*/*, application/x-npz;q=0", "image/png"),
        ("image/*;q=1, image/png;q=0.1, application/*;q=0.2", "application/x-npz"),
        (" , ;q=1", "application/x-npz"),
    ],
)
def test_an_answer_is_of_the_type_that_the_client_likes_best(header: str, found: str) -> None:
    assert chosen(header, ("application/x-npz", "image/png")) == found


@pytest.mark.parametrize("header", ["text/html", "image/png;q=0", "image/jpeg, image/png;q=0.000, text/*", "*/*;q=0"])
def test_an_answer_of_a_type_that_there_is_not_is_406(header: str) -> None:
    with pytest.raises(Fault, match="takes nothing that there is here: image/png") as fault:
        chosen(header, ("image/png",))
    assert fault.value.status == 406


def test_outputs_are_those_asked_for_and_json_where_nothing_is_said(site: Site) -> None:
    status, body = site.post("/v2/models/tiny/infer", request())
    assert status == 200
    assert [output["name"] for output in json.loads(body)["outputs"]] == ["semseg", "depth", "normals"]
    outputs = [{"name": "depth", "parameters": {"binary_data": True}}, {"name": "semseg"}]
    asked = json.dumps({**json.loads(request()), "outputs": outputs}).encode()
    _, headers, body = site.ask("/v2/models/tiny/versions/1/infer", asked)
    length = int(headers["Inference-Header-Content-Length"])
    depth, semseg = json.loads(body[:length])["outputs"]
    assert (depth["parameters"], depth["shape"], len(body) - length) == ({"binary_data_size": 4}, [1, 1], 4)
    assert (semseg["datatype"], len(semseg["data"])) == ("UINT8", 1)


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
    for accept, kind in (("image/*;q=0.8, text/html", "image/png"), ("*/*", "application/x-npz")):
        status, headers, _ = site.ask("/v2/models/tiny/image", file.getvalue(), Accept=accept)
        assert (status, headers["Content-Type"]) == (200, kind)
    for path, accept in (("image", "image/jpeg"), ("image?picture=depth", "application/x-npz")):
        status, body = site.post(f"/v2/models/tiny/{path}", file.getvalue(), Accept=accept)
        assert (status, "image/png" in json.loads(body)["error"]) == (406, True)
    assert site.post("/v2/models/tiny/image?picture=", file.getvalue())[0] == 400
    assert site.post("/v2/models/tiny/image?picture=edge", file.getvalue())[0] == 400
    assert site.post("/v2/models/tiny/image", file.getvalue()[:200])[0] == 400
    assert site.post("/v2/models/tiny/image", b"GIF89a")[0] == 415


def test_a_picture_is_seen_upright() -> None:
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6  # orientation: the camera stood on its side
    Image.fromarray(FRAME).save(file, "PNG", exif=turned)
    np.testing.assert_array_equal(read_picture(file.getvalue(), FRAME.size), np.rot90(FRAME, -1))


def test_the_token_is_asked_for(open_site: Open) -> None:
    site = open_site(token="secret")
    for given in ("", "Bearer", "Bearer wrong", "Basic secret", "Bearer s\xe9cret", "secret"):
        status, headers, body = site.ask("/v2/models/tiny/infer", request(), Authorization=given)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "token" in json.loads(body)["error"]
    assert site.post("/v2/models/tiny/infer", request(), Authorization="bearer secret")[0] == 200
    for path in ("/v2", "/metrics", "/v2/models/tiny", "/nowhere"):
        assert site.ask(path)[0] == 401
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert site.ask(path)[0] == 200


def test_names_that_collide_are_refused(make_artifact: Any) -> None:
    folder = make_artifact("tiny")
    with pytest.raises(SpecError, match="two artifacts would be served as 'tiny'"):
        open_models([folder, folder], 4)
    with pytest.raises(SpecError, match="two artifacts would be served as 'tiny"):
        open_models([folder, make_artifact("tiny.raw")], 4)
    with pytest.raises(SpecError, match="served at v2/models/stats, which is the statistics of all"):
        open_models([make_artifact("stats")], 4)
    with pytest.raises(SpecError, match="cannot be a model's name in a URL"):
        open_models([make_artifact("a b")], 4)


def test_names_like_routes_are_models(open_site: Open, make_artifact: Any) -> None:
    for name in ("ready", "versions", "infer"):
        site = open_site(make_artifact(name))
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1", f"/v2/models/{name}/versions/1/config"):
            assert json.loads(site.ask(path)[2])["name"] == name
        assert site.ask(f"/v2/models/{name}/ready")[0] == 200
        assert site.post(f"/v2/models/{name}/infer", request())[0] == 200


def test_an_artifact_of_one_frame_size_takes_that_and_refuses_others(open_site: Open, make_artifact: Any) -> None:
    site = open_site(make_artifact("sized", frame_size=(50, 70)))
    assert list(site.models) == ["sized"]
    for frame, wanted in ((FRAME, 200), (FRAME[:-1], 400)):
        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "png")
        status, body = site.post("/v2/models/sized/image", picture.getvalue())
        assert status == wanted, body
    assert "50" in json.loads(body)["error"]
