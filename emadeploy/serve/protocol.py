"""HTTP/1.1 as uvicorn speaks it, with bounds on how much and how slowly a client may send and take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from emadeploy.serve.gate import ABORT

#: Seconds for the headers of a request, bytes of headers (or of whatever else is no body), and connections at a time.
HEAD_SECONDS = 10.0
HEAD_BYTES = 1 << 16
CONNECTIONS = 256


class Protocol(HttpToolsProtocol):
    """One connection. ``timeout``: seconds for the body of a request, and for a client that takes nothing."""

    def __init__(self, *arguments: Any, timeout: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._timeout = timeout
        self._head = 0  # bytes since the last byte of a body
        self._incoming: asyncio.TimerHandle | None = None
        self._outgoing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Sending waits until all is the kernel's, so that an answer that was sent is one that was taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, f"there are more than {CONNECTIONS} connections")
        else:
            self._await_message()

    def connection_lost(self, exc: Exception | None) -> None:
        self._message_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._await_message()
        self._head += len(data)
        super().data_received(data)
        if self._head > HEAD_BYTES:
            self._refuse(431, f"there are more than {HEAD_BYTES} bytes of headers")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[typeddict-item]
        self._await_message()

    def on_headers_complete(self) -> None:
        self._head = 0
        self._message_came()
        # The gate, whose time is as long, answers first.
        self._incoming = self.loop.call_later(self._timeout + 1, self.transport.abort)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        self._message_came()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._outgoing is None:
            self._outgoing = self.loop.call_later(self._timeout + 1, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._outgoing is not None:
            self._outgoing.cancel()
            self._outgoing = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _await_message(self) -> None:
        if self._incoming is None:
            seconds = min(HEAD_SECONDS, self._timeout)
            self._incoming = self.loop.call_later(seconds, self._refuse, 408, "the headers did not come in time")

    def _message_came(self) -> None:
        if self._incoming is not None:
            self._incoming.cancel()
            self._incoming = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer to what never became a request, and close; where other answers come first, close alone."""
        if self.transport.is_closing():
            return
        amid = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if amid or self.pipeline:
            self.transport.abort()
            return
        text = json.dumps({"error": message}).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + text)
        self.transport.close()
