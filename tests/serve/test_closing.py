"""The end of a server, and engines that never come to one."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_of import Site, answer_of, poke, request, wait_until

from emadeploy.serve.gate import ABORT, Gate, Limits
from emadeploy.serve.metrics import Metrics
from emadeploy.serve.models import close_models, open_models

Open = Callable[..., Site]
LARGE = np.zeros((1000, 1000, 3), np.uint8)


def ask_in_background(site: Site) -> tuple[threading.Thread, list[tuple[int, bytes]]]:
    """Send an inference request, and return what will hold its answer."""
    answers: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(site.post("/v2/models/tiny/infer", request())))
    thread.start()
    return thread, answers


def ask_for_much(site: Site) -> socket.socket:
    """Return a connection that asked for 17 MB and reads nothing of them."""
    tensor = {"name": "frame", "datatype": "UINT8", "shape": list(LARGE.shape)}
    tensor["parameters"] = {"binary_data_size": LARGE.nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text) + LARGE.nbytes}\r\n"
    head += f"Inference-Header-Content-Length: {len(text)}\r\n\r\n"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    connection.connect(("127.0.0.1", site.port))
    connection.settimeout(20)
    connection.sendall(head.encode() + text + LARGE.tobytes())
    return connection


def test_what_is_asked_is_answered_and_what_is_new_refused(site: Site) -> None:
    release = site.occupy()
    thread, answers = ask_in_background(site)
    wait_until(lambda: site.worker.waiting == 1)
    site.server.stop()
    status, headers, body = site.ask("/v2/models/tiny/infer", request())
    assert (status, headers["Retry-After"], json.loads(body)) == (503, "1", {"error": "the server is closing"})
    assert site.ask("/v2/health/ready")[0] == 503
    assert site.ask("/v2/health/live")[0] == 200
    assert 'emadeploy_dropped_total{model="",reason="closing"} 1' in site.ask("/metrics")[2].decode()
    release.set()
    thread.join()
    assert answers[0][0] == 200
    site.thread.join(20)
    assert not site.thread.is_alive()
    with pytest.raises(ConnectionError):
        site.connect()


def test_a_refusal_is_read_by_those_that_are_still_sending(site: Site) -> None:
    release = site.occupy()
    thread, _ = ask_in_background(site)
    wait_until(lambda: site.worker.waiting == 1)
    site.server.stop()
    with site.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        assert poke(connection, b"a") == b""  # an answer now would be reset by the bytes after it
        connection.settimeout(20)
        connection.sendall(bytes(2_999_999))
        assert answer_of(connection) == (503, {"error": "the server is closing"})
    release.set()
    thread.join()


def test_clients_that_never_stop_asking_do_not_keep_it_from_ending(open_site: Open) -> None:
    site = open_site(timeout=0.3)
    site.app.metrics.in_flight += 1  # as if there were always one
    site.server.stop()
    site.thread.join(20)
    assert not site.thread.is_alive()


def test_a_stuck_engine_holds_up_neither_requests_nor_the_end(
    make_artifact: Callable[..., Path], open_site: Open
) -> None:
    site = open_site(timeout=1.0)
    release = site.occupy()
    assert site.post("/v2/models/tiny/infer", request())[0] == 504
    wait_until(lambda: site.worker.busy_s > 1.0)
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready"):
        status, _, body = site.ask(path)
        assert status == 503
        assert "the engine of 'tiny" in json.loads(body)["error"]
    site.server.stop()
    site.thread.join(20)
    assert not site.thread.is_alive()
    assert close_models(site.models, 0.1) == ["tiny"]
    assert site.worker.runtime.describe()["engine"] == "onnxruntime"  # not freed under the engine's feet
    release.set()


def test_closing_drops_what_waits(make_artifact: Callable[..., Path]) -> None:
    models = open_models([make_artifact()], 4)
    worker = models["artifact"].worker
    release, began = threading.Event(), threading.Event()
    worker.enter().submit(lambda: (began.set(), release.wait(20)))
    waiting = worker.enter().submit(lambda: 1)
    assert began.wait(20)
    threading.Timer(0.05, release.set).start()
    assert close_models(models, 20) == []
    assert waiting.cancelled()


def test_a_full_queue_is_503_and_a_place_is_free_when_its_request_is_late(open_site: Open) -> None:
    site = open_site(queue=1, timeout=0.5)
    release = site.occupy()  # a place of two
    place = site.worker.enter()
    status, headers, body = site.ask("/v2/models/tiny/infer", request())
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "queue of this model is full" in json.loads(body)["error"]
    place.leave()
    assert site.post("/v2/models/tiny/infer", request())[0] == 504
    assert (site.worker.taken, site.worker.waiting) == (1, 0)
    release.set()
    wait_until(lambda: site.worker.taken == 0)
    assert dict(site.app.metrics.dropped) == {("tiny", "full"): 1, ("tiny", "late"): 1}


def test_a_client_that_leaves_while_it_waits_frees_its_place(site: Site) -> None:
    release = site.occupy()
    with site.connect() as connection:
        body = request()
        head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: site.worker.waiting == 1)
    wait_until(lambda: site.worker.waiting == 0)
    wait_until(lambda: site.worker.taken == 1)
    release.set()
    wait_until(lambda: site.worker.taken == 0)
    assert site.models["tiny"].counts.success == 0  # the engine never saw it


def test_an_answer_holds_its_place_until_it_is_taken(open_site: Open) -> None:
    site = open_site()
    with ask_for_much(site) as connection:
        wait_until(lambda: site.models["tiny"].counts.success == 1)
        assert site.worker.taken == 1
        received = 0
        while received < 17_000_000:
            received += len(connection.recv(1 << 20))
    wait_until(lambda: site.worker.taken == 0)
    assert site.app.metrics.sent["tiny"] > 17_000_000


def test_a_client_that_leaves_while_it_is_answered_frees_its_place(open_site: Open) -> None:
    site = open_site()
    with ask_for_much(site) as connection:
        wait_until(lambda: site.models["tiny"].counts.success == 1)
        connection.recv(100)
    wait_until(lambda: site.worker.taken == 0)


def test_an_answer_that_is_late_is_cut_off_and_one_that_never_began_is_504() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask(began: bool) -> tuple[list[Any], list[str], Gate]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if began:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        aborted: list[str] = []
        gate = Gate(app, {}, Limits(timeout=0.01), None, Metrics())
        scope = {"type": "http", "path": "/v2/models/x/infer", "headers": []}
        await gate({**scope, "extensions": {ABORT: lambda: aborted.append("cut")}}, receive, send)
        return sent, aborted, gate

    for began, statuses, cuts in ((True, [200], ["cut"]), (False, [504], [])):
        sent, aborted, gate = asyncio.run(ask(began))
        assert [message["status"] for message in sent if "status" in message] == statuses
        assert aborted == cuts
        assert dict(gate.metrics.requests) == {("", 504): 1}
        assert gate.metrics.in_flight == 0


def test_a_client_that_takes_nothing_is_cut_off(open_site: Open) -> None:
    site = open_site(timeout=4.0)
    with ask_for_much(site) as connection:
        wait_until(lambda: site.models["tiny"].counts.success == 1)
        wait_until(lambda: site.worker.taken == 0)
        wait_until(lambda: len(site.server.server_state.connections) == 0)
        assert dict(site.app.metrics.dropped) == {("tiny", "late"): 1}
        received = 0
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
        assert received < 17_000_000  # which Content-Length promised


def test_an_engine_that_fails_is_500_and_serves_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    worker: Any = site.worker
    session = worker.runtime._session
    with monkeypatch.context() as patch:
        patch.setattr(session, "_session", None)
        status, body = site.post("/v2/models/tiny/infer", request())
    assert (status, json.loads(body)) == (500, {"error": "the server failed; its log says more"})
    assert site.post("/v2/models/tiny/infer", request())[0] == 200
    assert site.models["tiny"].counts.fail == 1
    wait_until(lambda: site.worker.taken == 0)
