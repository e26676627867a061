"""`emadeploy serve`: artifacts behind HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from emadeploy import __version__
from emadeploy.cli.options import requires
from emadeploy.contract.errors import DataError, SpecError
from emadeploy.contract.files import write_file

_LOCAL = ("127.0.0.1", "::1", "localhost")
Kserve = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|-", help="Serve nothing; write the manifests that serve these in KServe (-: print them)."
    ),
]
Image = Annotated[
    str | None, typer.Option(help="kserve: of deploy/Dockerfile.*, in your registry. [default: emadeploy:VERSION]")
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URI", help="kserve: the folder that holds the artifacts. [default: pvc://emadeploy-models/]"),
]


def command(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="Folders made by export.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one, which is printed.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from everywhere.")] = "127.0.0.1",
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Requests that may wait, per artifact.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.001, help="Seconds for one request.")] = 30.0,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1)] = 64,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: $EMADEPLOY_TOKEN]")] = None,
    kserve: Kserve = None,
    image: Image = None,
    storage: Storage = None,
) -> None:
    """Serve artifacts over HTTP in the Open Inference Protocol, with a page to try them at /."""
    if kserve is not None:
        elsewhere = {"--port": port != 8000, "--host": host != "127.0.0.1", "--token-file": token_file is not None}
        _check_flags(elsewhere, "the manifests of --kserve say it themselves: leave it out")
        write_manifests(
            artifacts, kserve, image=image, storage=storage, queue=queue, timeout=timeout, max_body=max_body
        )
        return
    _check_flags({"--image": image is not None, "--storage": storage is not None}, "it goes with --kserve")
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


def write_manifests(
    artifacts: list[Path], place: str, *, image: str | None, storage: str | None, **limits: Any
) -> None:
    """Write the manifests of KServe into the folder ``place``, or print them where it is '-'."""
    with requires("serve --kserve", "serve"):
        from emadeploy.serve.kserve import Cluster, manifests

    cluster = Cluster(image or f"emadeploy:{__version__}", storage or "pvc://emadeploy-models/", **limits)
    made = manifests(artifacts, cluster)
    if place == "-":
        print("---\n".join(made.values()), end="")
        return
    folder = Path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--kserve {folder} cannot be made: {error.strerror}") from None
    for name, text in made.items():
        write_file(folder / name, text)
        print(f"wrote {folder / name}")


def _check_flags(given: dict[str, bool], why: str) -> None:
    for flag, is_given in given.items():
        if is_given:
            raise SpecError(f"{flag}: {why}")


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
