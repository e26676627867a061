"""The Open Inference Protocol over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emadeploy import __version__
from emadeploy.contract.errors import EmadeployError, FrameError
from emadeploy.serve import tensors
from emadeploy.serve.answers import Answer
from emadeploy.serve.encodings import accepted, chosen, compress, decompress
from emadeploy.serve.faults import Fault
from emadeploy.serve.gate import Gate, Limits, error, of_fault
from emadeploy.serve.metrics import CONTENT_TYPE, Metrics
from emadeploy.serve.models import Served
from emadeploy.serve.pictures import read_picture, write_npz, write_picture
from emadeploy.serve.worker import Place

_log = logging.getLogger("emadeploy.serve")
#: Bytes of JSON that are read where they come; what takes longer goes to a thread.
_QUICK = 100_000
#: Bytes of a body that says nothing here.
_SMALL = 1 << 16
#: A body that is too large is read to its end and forgotten, up to so many times the limit: a client hears the answer
#: only when it has sent everything.
_PATIENCE = 4
#: What a picture is answered with: its maps, or a picture of them.
_NPZ, _PNG = "application/x-npz", "image/png"

Maps = Mapping[str, tensors.Array]


class Service:
    """The answers of a server for ``models``, by name; each method is that of a route."""

    def __init__(self, models: Mapping[str, Served], limits: Limits, metrics: Metrics) -> None:
        self._models, self._limits, self._metrics = models, limits, metrics
        self._expanding = asyncio.Lock()  # what grows when it is read does so one at a time

    async def page(self, _: Request) -> Response:
        text = (Path(__file__).parent / "page.html").read_text("utf-8")
        maps = {name: [o.name for o in model.outputs] for name, model in self._models.items() if not model.raw}
        return HTMLResponse(text.replace("/* models and their maps */ {}", json.dumps(maps)))

    async def server(self, _: Request) -> Response:
        extensions = ["binary_tensor_data", "statistics", "model_configuration", "model_repository"]
        return JSONResponse({"name": "emadeploy", "version": __version__, "extensions": extensions})

    async def health(self, _: Request) -> Response:
        for model in self._models.values():
            self._check_engine(model)
        return JSONResponse({})

    async def index(self, request: Request) -> Response:
        await self._body(request, _SMALL)
        return JSONResponse([{"name": name, "version": "1", "state": "READY", "reason": ""} for name in self._models])

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self._model(request).metadata())

    async def ready(self, request: Request) -> Response:
        self._check_engine(self._model(request))
        return JSONResponse({})

    async def config(self, request: Request) -> Response:
        return JSONResponse(self._model(request).config())

    async def stats(self, request: Request) -> Response:
        chosen = [self._model(request)] if "model" in request.path_params else self._models.values()
        return JSONResponse({"model_stats": [model.stats() for model in chosen]})

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(self._models), headers={"Content-Type": CONTENT_TYPE})

    async def infer(self, request: Request) -> Response:
        """Answer tensors with tensors; raises Fault and whatever the Runtime does."""
        model = self._model(request)
        header = request.headers.get(tensors.HEADER)

        def read(body: bytes) -> tensors.Query:
            query = tensors.read_query(body, header, model.input, model.outputs, self._limits.body)
            tensors.check_answer(query, model.outputs, self._limits.body)
            if not model.raw and query.array.shape[0] * query.array.shape[1] > self._limits.pixels:
                raise Fault(400, f"the frame has more than {self._limits.pixels} pixels: resize it")
            return query

        async def answer(place: Place) -> Response:
            body = await self._body(request)
            quick = header is not None and len(header) < len(str(_QUICK))
            query = read(body) if quick else await self._expand(read, body)
            maps = await self._maps(request, model, place, query.array)
            encoding = accepted(request.headers.get("accept-encoding", ""))
            if encoding is None and all(query.wanted.values()):
                return _answer(place, maps, query, model.name, None)
            return await self._expand(_answer, place, maps, query, model.name, encoding)

        return await self._placed(model, answer)

    async def image(self, request: Request) -> Response:
        """Answer a picture with its maps, or with a picture of them; raises Fault and whatever the Runtime does."""
        model = self._model(request)
        if model.raw:
            raise Fault(404, f"{model.name!r} takes tensors alone; send pictures to {model.name[:-4]!r}")
        asked, takes = request.query_params.get("picture"), ", ".join(request.headers.getlist("accept"))
        media_type = chosen(takes, (_NPZ, _PNG) if asked is None else (_PNG,))
        which = asked if asked is not None else "all"
        if which not in ("all", *(output.name for output in model.outputs)):
            raise Fault(400, f"picture {which[:40]!r} is no map of {model.name!r}")

        async def answer(place: Place) -> Response:
            body = await self._body(request)
            picture = await self._expand(read_picture, body, self._limits.pixels)
            maps = await self._maps(request, model, place, picture)
            if media_type == _NPZ:
                return Answer([await self._expand(write_npz, maps)], media_type, place, {})
            spec = model.worker.runtime.spec
            return Answer([await self._expand(write_picture, maps, spec, which)], media_type, place, {})

        return await self._placed(model, answer)

    async def _placed(self, model: Served, answer: Callable[[Place], Any]) -> Response:
        """Return the ``answer`` that holds the place until it is sent; without one, the place is given back."""
        place = model.worker.enter()  # before the body is read, so that bodies too are bounded
        try:
            response: Response = await answer(place)
            return response
        except BaseException:
            place.leave()
            raise

    async def _maps(self, request: Request, model: Served, place: Place, array: tensors.Array) -> Maps:
        running = asyncio.wrap_future(model.submit(place, array))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise ClientDisconnect
            maps: Maps = running.result()
            return maps
        finally:
            gone.cancel()
            running.cancel()

    async def _expand(self, work: Callable[..., Any], *arguments: Any) -> Any:
        async with self._expanding:
            return await run_in_threadpool(work, *arguments)

    def _model(self, request: Request) -> Served:
        name, version = request.path_params["model"], request.path_params.get("version", "1")
        if name not in self._models or version != "1":
            raise Fault(404, f"model {name[:80]!r} version {version[:20]!r} is not served; see v2/repository/index")
        return self._models[name]

    def _check_engine(self, model: Served) -> None:
        if model.worker.busy_s > self._limits.timeout:
            raise Fault(503, f"the engine of {model.name!r} has been at one frame for {model.worker.busy_s:.0f} s")

    async def _body(self, request: Request, limit: int | None = None) -> bytes:
        limit, body, size = limit or self._limits.body, bytearray(), 0
        too_large = Fault(413, f"the body is larger than {limit} bytes", Connection="close")
        async for chunk in request.stream():
            size += len(chunk)
            if size > _PATIENCE * limit:
                raise too_large
            body += chunk
            if size > limit:
                body.clear()
        if size > limit:
            raise too_large
        encoding = request.headers.get("content-encoding", "").strip().lower()
        return await self._expand(decompress, bytes(body), encoding, limit) if encoding else bytes(body)


def make_app(models: Mapping[str, Served], limits: Limits, token: str | None = None) -> Gate:
    """Return the application that serves ``models``; with ``token``, to those who send it."""
    metrics = Metrics()
    service = Service(models, limits, metrics)
    routes = [
        ("/", "GET", service.page),
        ("/v2", "GET", service.server),
        ("/v2/health/live", "GET", service.health),
        ("/v2/health/ready", "GET", service.health),
        ("/v2/repository/index", "POST", service.index),
        ("/v2/models/stats", "GET", service.stats),
        ("/metrics", "GET", service.metrics),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [(f"{base}/{ending}", "GET", getattr(service, ending)) for ending in ("ready", "config", "stats")]
        routes += [(base, "GET", service.metadata)]
        routes += [(f"{base}/infer", "POST", service.infer), (f"{base}/image", "POST", service.image)]
    app = Starlette(
        routes=[Route(path, answer, methods=[verb]) for path, verb, answer in routes],
        exception_handlers={
            Fault: _fault,
            FrameError: _frame,
            EmadeployError: _failed,
            HTTPException: _http,
            ClientDisconnect: _left,
            Exception: _crashed,
        },
    )
    app.router.redirect_slashes = False
    return Gate(app, models, limits, token, metrics)


def _answer(place: Place, maps: Maps, query: tensors.Query, name: str, encoding: str | None) -> Answer:
    parts, binary = tensors.write_answer(maps, query, name)
    headers = {tensors.HEADER: str(len(parts[0]))} if binary else {}
    if encoding is not None:
        parts, headers["Content-Encoding"] = [compress(parts, encoding)], encoding
    return Answer(parts, "application/octet-stream" if binary else "application/json", place, headers)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _fault(_: Request, fault: Any) -> Response:
    return of_fault(fault)


async def _frame(_: Request, problem: Exception) -> Response:
    return error(400, str(problem))


async def _failed(request: Request, problem: Exception) -> Response:
    _log.error("%s: %s", request.url.path, problem)
    return error(500, f"{type(problem).__name__}: {problem}")


async def _crashed(_: Request, __: Exception) -> Response:
    return error(500, "the server failed; its log says more")  # Starlette raises it again, and the gate logs it


async def _http(_: Request, problem: Any) -> Response:
    return error(problem.status_code, problem.detail, problem.headers)


async def _left(_: Request, __: Exception) -> Response:
    return error(499, "the client left")
