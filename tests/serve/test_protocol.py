"""Connections of clients that are slow, endless or no clients at all."""

import contextlib
import json
import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from site_of import Site, answer_of, poke, request, wait_until

from emadeploy.serve import protocol

Open = Callable[..., Site]
HEAD = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\n"


def test_headers_that_do_not_come_end_the_connection(open_site: Open) -> None:
    site = open_site(timeout=0.2)
    for sent in (b"", b"\r\n", b"POST /v2/mod", HEAD, HEAD + b"X-Long: "):
        with site.connect() as connection:
            connection.sendall(sent)
            status, answer = answer_of(connection)
        assert (status, answer) == (408, {"error": "the headers did not come in time"})


def test_headers_that_trickle_end_the_connection(open_site: Open) -> None:
    site = open_site(timeout=0.3)
    with site.connect() as connection:
        connection.sendall(HEAD)
        received = b""
        while b" 408 " not in received:
            received += poke(connection, b"X: y\r\n")


def test_a_second_request_that_trickles_ends_the_connection_too(open_site: Open) -> None:
    site = open_site(timeout=1.0)
    with site.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(1 << 16)
        connection.sendall(b"GET /v2")
        assert answer_of(connection)[0] == 408


def test_a_body_that_does_not_come_is_answered_in_time_and_leaves_its_place(open_site: Open) -> None:
    site = open_site(timeout=0.3, queue=1)
    with site.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 504 ")
        while connection.recv(1 << 16):  # and the rest of the body is not waited for
            pass
    wait_until(lambda: site.worker.taken == 0)


def test_a_client_that_leaves_amid_its_body_leaves_its_place(site: Site) -> None:
    with site.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
        wait_until(lambda: site.worker.taken == 1)
    wait_until(lambda: site.worker.taken == 0)
    wait_until(lambda: site.app.metrics.dropped["tiny", "left"] == 1)


ENDLESS = [
    (HEAD, b"X: " + b"y" * 9000 + b"\r\n"),
    (HEAD + b"X: ", b"y" * 9000),
    (b"GET /", b"a" * 9000),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"extension" * 1000),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"y" * 9000 + b"\r\n"),
]


def test_what_is_no_body_is_bounded(site: Site) -> None:
    for start, rest in ENDLESS:
        with site.connect() as connection:
            connection.sendall(start)
            sent, received = 0, b""
            with contextlib.suppress(ConnectionError):  # closed before all that was sent was read
                while not received:
                    sent += len(rest)
                    received = poke(connection, rest)
            assert not received or received.split()[1] in (b"431", b"400")
            assert sent < 3 << 20


def test_connections_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CONNECTIONS", 3)
    opened = [site.connect() for _ in range(3)]
    wait_until(lambda: len(site.server.server_state.connections) == 3)
    with site.connect() as connection:
        assert answer_of(connection) == (503, {"error": "there are more than 3 connections"})
    opened.pop().close()
    wait_until(lambda: len(site.server.server_state.connections) == 2)
    assert site.ask("/v2/health/live")[0] == 200
    for connection in opened:
        connection.close()


def test_garbage_after_requests_that_wait_is_not_answered_in_their_place(site: Site) -> None:
    release = site.occupy()
    ask = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    body = request()
    with site.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + ask + b"\x16\x03\x01\r\n\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):
            received = connection.recv(1 << 16)
    assert received == b""
    release.set()
    wait_until(lambda: site.worker.taken == 0)


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET nowhere HTTP/1.1\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nz\r\n",
    HEAD + b"Bad Header: 1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def test_what_is_no_http_is_400_and_the_server_goes_on(site: Site) -> None:
    for garbage in GARBAGE:
        with site.connect() as connection:
            connection.sendall(garbage)
            status, answer = answer_of(connection)
        assert 400 <= status < 500, garbage
        assert list(answer) == ["error"]
    wait_until(lambda: site.worker.taken == 0)
    assert site.ask("/v2/health/ready")[0] == 200


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.binary(max_size=60)
    | st.sampled_from([HEAD, b"GET / HTTP/1.1\r\n", b"POST /v2/repository/index HTTP/1.1\r\n"]),
    rest=st.lists(
        st.binary(max_size=20)
        | st.sampled_from(
            [b"\r\n", b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"]
            + [b"0\r\n\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n"]
        ),
        max_size=6,
    ),
)
def test_any_bytes_leave_the_server_as_it_was(site: Site, head: bytes, rest: list[bytes]) -> None:
    with site.connect() as connection:
        connection.sendall(head + b"".join(rest))
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(1 << 16):
                received += chunk
    assert b" 500 " not in received[:20]
    if received.startswith(b"HTTP/1.1 4"):
        assert list(json.loads(received.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0])) == ["error"]
    wait_until(lambda: site.worker.taken == 0)
