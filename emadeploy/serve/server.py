"""A server from its first connection to its last: it listens, serves, and ends without losing an answer."""

from __future__ import annotations

import functools
import math
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from emadeploy.contract.errors import DeviceError
from emadeploy.serve.gate import Gate, Limits
from emadeploy.serve.protocol import Protocol

#: Seconds that a client which asks again is expected within, and for connections to close when all is answered.
_KEEP_ALIVE = 75
_LAST_SECONDS = 2


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at ``host`` and ``port`` (0: any free one) which does not listen yet; raises DeviceError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise DeviceError(f"--host {host!r} is no address of this machine: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise DeviceError(f"port {port} of {host} cannot be had: {error.strerror}; choose another --port") from None
    return bound


class Server(uvicorn.Server):
    """Serves ``gate`` on ``bound``, and calls ``started`` when the first request may come.

    SIGTERM or SIGINT: what is being answered is, what is new is refused with 503, and :meth:`run` returns when there is
    nothing left, at the latest after the time of a request. A second signal ends it at once.
    """

    def __init__(self, gate: Gate, limits: Limits, bound: socket.socket, started: Callable[[], None]) -> None:
        config = uvicorn.Config(
            gate,
            loop="asyncio",
            http=functools.partial(Protocol, timeout=limits.timeout),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        super().__init__(config)
        self._gate, self._bound, self._on_start = gate, bound, started
        self._patience = limits.timeout
        self._last = math.inf  # when it ends, whatever is in flight, on the clock of time.monotonic

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or :meth:`stop`. Raises DeviceError where another program took the port meanwhile."""
        try:
            super().run([self._bound])
        except OSError as error:
            raise DeviceError(f"{self._bound.getsockname()} cannot be listened on: {error.strerror}") from None

    def stop(self) -> None:
        """Refuse what is new, and end when what is being answered is."""
        if not self._gate.closing:
            self._last = time.monotonic() + self._patience
        self._gate.closing = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. uvicorn would raise it again at the end, as if the process had not ended in order."""
        if self._gate.closing:
            self.should_exit = self.force_exit = True
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        # What is refused is in flight too: those that never stop asking must not keep it from ending.
        done = self._gate.metrics.in_flight == 0 or time.monotonic() > self._last
        return await super().on_tick(counter) or (self._gate.closing and done)
