"""What a client did wrong, or cannot have now: an HTTP status beside the message."""

from __future__ import annotations

from emadeploy.contract.errors import EmadeployError


class Fault(EmadeployError):  # noqa: N818 - the name says what is the matter
    """A request that is answered with ``status`` and ``{"error": message}``."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
