"""A server on a free port, in a thread, and requests to it."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("onnxruntime")
from emadeploy.serve.app import make_app
from emadeploy.serve.gate import Limits
from emadeploy.serve.models import close_models, open_models
from emadeploy.serve.server import Server, bind

FRAME = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)


def request(**changes: Any) -> bytes:
    """Return the JSON of an inference request for one pixel, with changes to its input."""
    tensor = {"name": "frame", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [tensor]}).encode()


class Site:
    """Serves the artifact in ``folder``."""

    def __init__(self, *folders: Path, queue: int = 4, token: str | None = None, **limits: Any) -> None:
        self.folder = folders[0]
        self.models = open_models(folders, queue)
        self.app = make_app(self.models, Limits(**limits), token)
        bound = bind("127.0.0.1", 0)
        self.port = bound.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        started = threading.Event()
        self.server = Server(self.app, Limits(**limits), bound, started.set)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert started.wait(20)

    @property
    def worker(self) -> Any:
        """The worker of the first artifact."""
        return next(iter(self.models.values())).worker

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Return status, headers and body of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            asked = urllib.request.Request(f"http://{self.address}{path}", body, named)
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        status, _, answer = self.ask(path, body, **headers)
        return status, answer

    def connect(self) -> socket.socket:
        """Return a connection, to send bytes that no client would."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def occupy(self) -> threading.Event:
        """Keep the engine at a frame until the event that is returned is set."""
        release, began = threading.Event(), threading.Event()
        place = self.worker.enter()
        place.submit(lambda: (began.set(), release.wait(60)))
        assert began.wait(20)
        place.leave()
        return release

    def close(self) -> None:
        """End as on SIGTERM."""
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        close_models(self.models)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what is to come about; fails after a long while."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of an answer after which the server closes."""
    received = b""
    while chunk := connection.recv(1 << 16):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def poke(connection: socket.socket, data: bytes) -> bytes:
    """Send ``data`` and return what has come back so far, mostly nothing."""
    connection.settimeout(0.01)
    try:
        connection.sendall(data)
        return connection.recv(1 << 16)
    except TimeoutError:
        return b""
