"""`emadeploy serve`: artifacts behind HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from emadeploy.cli.options import requires
from emadeploy.contract.errors import SpecError

_LOCAL = ("127.0.0.1", "::1", "localhost")


def command(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="Folders made by export.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one, which is printed.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from everywhere.")] = "127.0.0.1",
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Requests that may wait, per artifact.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.001, help="Seconds for one request.")] = 30.0,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1)] = 64,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: $EMADEPLOY_TOKEN]")] = None,
) -> None:
    """Serve artifacts over HTTP in the Open Inference Protocol, with a page to try them at /."""
    with requires("serve", "serve"):
        from emadeploy.serve.app import make_app
        from emadeploy.serve.gate import Limits
        from emadeploy.serve.models import close_models, open_models
        from emadeploy.serve.server import Server, bind

    token, limits = read_token(token_file), Limits(max_body << 20, timeout)
    with bind(host, port) as bound:
        if host not in _LOCAL and token is None:
            _say(f"{host} is reachable by others, and no token is set (--token-file)")
        models = open_models(artifacts, queue)
        try:
            address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
            names = ", ".join(models)
            Server(make_app(models, limits, token), limits, bound, lambda: _announce(names, address)).run()
        finally:
            stuck = close_models(models)
    if stuck:
        _say(f"DeviceError: the engine of {', '.join(stuck)} does not stop; the process ends without it")
        os._exit(1)  # an orderly end would wait for the thread inside the engine


def _announce(names: str, address: str) -> None:
    print(f"serving {names} on {address}", flush=True)


def _say(message: str) -> None:
    print(f"emadeploy: {message}", file=sys.stderr, flush=True)


def read_token(file: Path | None) -> str | None:
    """Return the token in ``file``, else in $EMADEPLOY_TOKEN, else ``None``; SpecError where it is empty or no word."""
    if file is None and "EMADEPLOY_TOKEN" not in os.environ:
        return None
    where = f"--token-file {file}" if file else "$EMADEPLOY_TOKEN"
    try:
        token = (file.read_text("utf-8") if file else os.environ["EMADEPLOY_TOKEN"]).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{where} cannot be read: {error}") from None
    if not token:
        raise SpecError(f"the token in {where} is empty; write one, or unset it")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SpecError(f"the token in {where} is not one word of ASCII, which is all that a header can carry")
    return token
