"""`emadeploy serve`: artifacts behind HTTP."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from emadeploy.contract.errors import BackendMissing, SpecError

_LOCAL = ("127.0.0.1", "::1", "localhost")


def command(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="Folders made by export.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from everywhere.")] = "127.0.0.1",
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Requests that may wait, per model.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.001, help="Seconds for one request.")] = 30.0,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1)] = 64,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: $EMADEPLOY_TOKEN]")] = None,
) -> None:
    """Serve artifacts over HTTP in the Open Inference Protocol, with a page to try them at /."""
    for module in ("starlette", "uvicorn", "PIL"):
        if importlib.util.find_spec(module) is None:
            raise BackendMissing.of("serve", module, "serve")
    import uvicorn

    from emadeploy.serve.app import Limits, make_app
    from emadeploy.serve.models import close_models, open_models

    token = read_token(token_file)
    if host not in _LOCAL and token is None:
        print(f"emadeploy: {host} is reachable by others, and no token is set (--token-file)", file=sys.stderr)
    models = open_models(artifacts, queue)
    try:
        app = make_app(models, Limits(max_body << 20, timeout), token)
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=int(timeout) + 1)
    finally:
        close_models(models)


def read_token(file: Path | None) -> str | None:
    """Return the token in ``file``, else in $EMADEPLOY_TOKEN, else ``None``; SpecError where the one named is empty."""
    if file is None and "EMADEPLOY_TOKEN" not in os.environ:
        return None
    try:
        token = (file.read_text("utf-8") if file else os.environ["EMADEPLOY_TOKEN"]).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--token-file {file} cannot be read: {error}") from None
    if not token:
        raise SpecError(f"the token in {file or '$EMADEPLOY_TOKEN'} is empty; write one, or unset it")
    return token
