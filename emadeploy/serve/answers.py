"""Answers that are sent piece by piece, each when the client has taken the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emadeploy.serve.worker import Place


class Answer(Response):
    """``parts``, one after the other; ``place`` is held until the client has taken the last.

    So those that read slowly count as those that wait do: however many there are, their maps are bounded.
    """

    def __init__(
        self, parts: Sequence[bytes | memoryview], media_type: str, place: Place, headers: Mapping[str, str]
    ) -> None:
        length = str(sum(map(len, parts)))
        super().__init__(None, headers={**headers, "Content-Length": length}, media_type=media_type)
        self._parts, self._place = list(parts), place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._parts.reverse()
            while self._parts:
                await send({"type": "http.response.body", "body": self._parts.pop(), "more_body": True})
            # Sending waits for what was sent before: this, of nothing, for all.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._place.leave()
