"""The Open Inference Protocol over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emadeploy import __version__
from emadeploy.contract.errors import FrameError
from emadeploy.serve import tensors
from emadeploy.serve.faults import Fault
from emadeploy.serve.models import Served
from emadeploy.serve.pictures import MAX_PIXELS, read_picture, write_npz, write_picture

_log = logging.getLogger("emadeploy.serve")
_OPEN = ("/", "/v2/health/live", "/v2/health/ready")


@dataclass(frozen=True)
class Limits:
    """``body`` in bytes, also decompressed and as an array; ``timeout`` in seconds, from the first byte to the maps."""

    body: int = 64 << 20
    timeout: float = 30.0


class Service:
    """The answers of a server for ``models``, by name."""

    def __init__(self, models: Mapping[str, Served], limits: Limits, token: str | None) -> None:
        self.models, self.limits, self._token = models, limits, token

    async def page(self, _: Request) -> Response:
        text = (Path(__file__).parent / "page.html").read_text("utf-8")
        names = [name for name, model in self.models.items() if not model.raw]
        return HTMLResponse(text.replace("MODELS", json.dumps(names)))

    async def server(self, _: Request) -> Response:
        extensions = ["binary_tensor_data", "statistics", "model_configuration", "model_repository"]
        return JSONResponse({"name": "emadeploy", "version": __version__, "extensions": extensions})

    async def health(self, _: Request) -> Response:
        return JSONResponse({})

    async def index(self, request: Request) -> Response:
        await self._body(request)
        return JSONResponse([{"name": name, "version": "1", "state": "READY", "reason": ""} for name in self.models])

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self._model(request).metadata())

    async def ready(self, request: Request) -> Response:
        self._model(request)
        return JSONResponse({})

    async def config(self, request: Request) -> Response:
        model = self._model(request)
        types = {"FP32": "TYPE_FP32", "UINT8": "TYPE_UINT8"}

        def plain(tensor: tensors.Tensor) -> dict[str, Any]:
            return {"name": tensor.name, "data_type": types[tensor.datatype], "dims": list(tensor.shape)}

        sides = {"input": [plain(model.input)], "output": [plain(output) for output in model.outputs]}
        return JSONResponse({"name": model.name, "backend": "emadeploy", "max_batch_size": 0, **sides})

    async def stats(self, request: Request) -> Response:
        chosen = [self._model(request)] if "model" in request.path_params else self.models.values()
        return JSONResponse({"model_stats": [model.stats() for model in chosen]})

    async def metrics(self, _: Request) -> Response:
        lines = []
        for metric in ("success", "fail"):
            lines.append(f"# TYPE emadeploy_requests_{metric}_total counter")
            for name, model in self.models.items():
                lines.append(f'emadeploy_requests_{metric}_total{{model="{name}"}} {getattr(model.counts, metric)}')
        lines.append("# TYPE emadeploy_run_seconds_total counter")
        for name, model in self.models.items():
            lines.append(f'emadeploy_run_seconds_total{{model="{name}"}} {model.counts.success_ns / 1e9}')
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def infer(self, request: Request) -> Response:
        model = self._model(request)

        def read(body: bytes) -> tensors.Query:
            header = request.headers.get(tensors.HEADER)
            query = tensors.read_query(body, header, model.input, model.outputs, self.limits.body)
            if not model.raw and query.array.shape[0] * query.array.shape[1] > MAX_PIXELS:
                raise Fault(400, f"the frame has more than {MAX_PIXELS} pixels")
            return query

        query, maps = await self._run(request, model, read, lambda query: query.array)
        body, length = await run_in_threadpool(tensors.write_answer, maps, query, model.name)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={tensors.HEADER: str(length)})

    async def image(self, request: Request) -> Response:
        model = self._model(request)
        if model.raw:
            raise Fault(404, f"{model.name!r} takes tensors alone; send pictures to {model.name[:-4]!r}")
        png = request.headers.get("accept", "").split(";")[0].strip() == "image/png"
        which = request.query_params.get("picture", "all" if png else "")
        if which and which not in ("all", *(output.name for output in model.outputs)):
            raise Fault(400, f"picture {which[:40]!r} is no map of {model.name!r}")
        _, maps = await self._run(request, model, read_picture, lambda picture: picture)
        if which:
            spec = model.worker.runtime.spec
            return Response(await run_in_threadpool(write_picture, maps, spec, which), media_type="image/png")
        return Response(await run_in_threadpool(write_npz, maps), media_type="application/x-npz")

    async def _run(
        self, request: Request, model: Served, read: Callable[[bytes], Any], array: Callable[[Any], tensors.Array]
    ) -> tuple[Any, Mapping[str, tensors.Array]]:
        deadline = asyncio.get_running_loop().time() + self.limits.timeout
        model.worker.enter()  # before the body is read, so that bodies too are bounded
        try:
            body = await asyncio.wait_for(self._body(request), self.limits.timeout)
            query = await run_in_threadpool(read, body)
            future = model.worker.submit(model.run, array(query))
        except asyncio.TimeoutError:
            model.worker.leave()
            raise self._late() from None
        except BaseException:
            model.worker.leave()
            raise
        running = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_gone(request))
        left = max(deadline - asyncio.get_running_loop().time(), 0)
        try:
            await asyncio.wait({running, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return query, running.result()
            raise ClientDisconnect if gone.done() else self._late()
        finally:
            gone.cancel()
            future.cancel()  # frees the place at once, unless the engine is at it: then at its end

    def _late(self) -> Fault:
        return Fault(504, f"no answer within {self.limits.timeout:g} s")

    def _model(self, request: Request) -> Served:
        name, version = request.path_params["model"], request.path_params.get("version", "1")
        if name not in self.models or version != "1":
            raise Fault(404, f"model {name[:80]!r} version {version[:20]!r} is not served; see v2/repository/index")
        return self.models[name]

    async def _body(self, request: Request) -> bytes:
        self._authorise(request)
        limit, body = self.limits.body, bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Fault(413, f"the body is larger than {limit} bytes", Connection="close")
        encoding = request.headers.get("content-encoding", "").strip().lower()
        return await run_in_threadpool(tensors.decompress, bytes(body), encoding, limit) if encoding else bytes(body)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise Fault(401, "send the token of this server: 'Authorization: Bearer ...'", WWW_Authenticate="Bearer")

    def guarded(self, path: str, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Return ``answer`` behind the token, but for the page and the health checks."""
        if path in _OPEN:
            return answer

        async def checked(request: Request) -> Response:
            self._authorise(request)
            response: Response = await answer(request)
            return response

        return checked


def make_app(models: Mapping[str, Served], limits: Limits, token: str | None = None) -> Starlette:
    """Return the application that serves ``models``; with ``token``, to those who send it."""
    service = Service(models, limits, token)
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
    return Starlette(
        routes=[Route(path, service.guarded(path, answer), methods=[verb]) for path, verb, answer in routes],
        exception_handlers={
            Fault: _fault,
            FrameError: _frame,
            HTTPException: _http,
            ClientDisconnect: _left,
            Exception: _failed,
        },
    )


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers=headers)


async def _fault(_: Request, fault: Any) -> Response:
    return _error(fault.status, str(fault), fault.headers)


async def _frame(_: Request, error: Exception) -> Response:
    return _error(400, str(error))


async def _http(_: Request, error: Any) -> Response:
    return _error(error.status_code, error.detail, error.headers)


async def _left(_: Request, __: Exception) -> Response:
    return _error(499, "the client left")


async def _failed(_: Request, error: Exception) -> Response:
    _log.error("a request failed: %s", error)
    return _error(500, f"the model failed: {type(error).__name__}; the server's log says more")
