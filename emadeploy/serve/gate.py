"""What stands before the routes: the token, the deadline, the counting, and the end of the server."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emadeploy.contract.errors import SpecError
from emadeploy.serve.faults import Fault
from emadeploy.serve.metrics import Metrics

_log = logging.getLogger("emadeploy.serve")
#: Paths for those without a token. The page holds nothing, and orchestrators send none with their checks.
OPEN = ("/", "/v2/health/live", "/v2/health/ready")
#: Paths that are answered while the server closes.
_TO_THE_LAST = ("/v2/health/live", "/metrics")
#: Key of ``scope["extensions"]``: what cuts the connection at once, without an end to the answer.
ABORT = "emadeploy.abort"
#: Paths that ask for inference, as the routes have them; a model may be called 'infer'.
_INFERENCE = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/(infer|image)")


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    ``body``: bytes of a body, also decompressed, as an array, and of an answer in JSON. ``pixels``: of a frame.
    ``timeout``: seconds from the headers to the last byte of the answer, so too how long the engine may take.
    """

    body: int = 64 << 20
    timeout: float = 30.0
    pixels: int = 1 << 23

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise SpecError(f"a timeout of {self.timeout:g} s is no time: give seconds above 0")


class Gate:
    """The ASGI application around ``app``. Set ``closing`` to refuse what is new; ``metrics.in_flight`` says when done.

    ``models`` are the names that metrics may have.
    """

    def __init__(self, app: ASGIApp, models: Mapping[str, Any], limits: Limits, token: str | None, metrics: Metrics):
        self.closing = False
        self.metrics = metrics
        self._app, self._models, self._limits, self._token = app, models, limits, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send)
        started = time.perf_counter()
        self.metrics.in_flight += 1
        try:
            await asyncio.wait_for(self._answer(exchange), self._limits.timeout)
        except asyncio.TimeoutError:
            await exchange.end(504, f"no answer within {self._limits.timeout:g} s")
        except Exception:
            _log.exception("a request failed")
            await exchange.end(500, "the server failed; its log says more")
        finally:
            self.metrics.in_flight -= 1
            self._count(exchange, time.perf_counter() - started)

    async def _answer(self, exchange: _Exchange) -> None:
        path = exchange.scope["path"]
        if self.closing and path not in _TO_THE_LAST:
            await exchange.read_all()
            await exchange.end(503, "the server is closing", {"Retry-After": "1", "Connection": "close"})
        elif path not in OPEN and not self._authorised(exchange.scope):
            text = "send the token of this server: 'Authorization: Bearer ...'"
            await exchange.end(401, text, {"WWW-Authenticate": "Bearer"})
        else:
            await self._app(exchange.scope, exchange.receive, exchange.send)

    def _authorised(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return hmac.compare_digest(given.strip().encode(), self._token.encode()) and scheme.lower() == "bearer"

    def _count(self, exchange: _Exchange, seconds: float) -> None:
        name = exchange.scope.get("path_params", {}).get("model", "")
        name = name if name in self._models else ""
        self.metrics.received[name] += exchange.received
        self.metrics.sent[name] += exchange.sent
        inference = _INFERENCE.fullmatch(exchange.scope["path"]) is not None
        status = exchange.status or 499
        self.metrics.note(name, status, inference=inference, closing=self.closing, seconds=seconds)


class _Exchange:
    """A request and its answer, with their bytes; ``status`` is that of the answer once it began."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.received = self.sent = 0
        self.status: int | None = None
        self._complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.sent += len(message.get("body", b""))
        await self._send(message)
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def read_all(self) -> None:
        """Read the body and forget it: a connection closed with bytes unread is reset, and the answer lost."""
        while (message := await self.receive())["type"] == "http.request" and message.get("more_body", False):
            pass

    async def end(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an error; an answer that has begun is cut off, so that nobody takes it for whole."""
        if self.status is None:
            await error(status, message, headers)(self.scope, self.receive, self.send)
        elif not self._complete:
            self.status = status
            self._abort()
            await asyncio.sleep(0)  # until the connection knows

    def _abort(self) -> None:
        abort: Callable[[], None] | None = self.scope.get("extensions", {}).get(ABORT)
        if abort is not None:
            abort()


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer to a request that failed."""
    text = json.dumps({"error": message})  # in ASCII: what clients sent may be no text
    return Response(text, status, headers=dict(headers or {}), media_type="application/json")


def of_fault(fault: Fault) -> Response:
    """Return the answer that ``fault`` is."""
    return error(fault.status, str(fault), fault.headers)
