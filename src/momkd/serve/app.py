"""The application: routes, page, guard, numbers; and how it is run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from momkd.errors import ServeError
from momkd.serve.guard import Guard
from momkd.serve.handbook import handbook
from momkd.serve.jobs import Service
from momkd.serve.patience import Patience
from momkd.serve.routes import router
from momkd.serve.settings import ServeSettings

_ABOUT = """Probabilities, maps and patches from histology alone. Files go in the body of a request:

    curl -H "Authorization: Bearer $TOKEN" --data-binary @A1.h5 "http://HOST:PORT/api/predict?model=her2&name=A1.h5"

Research use, not a medical device."""
# How often what nobody looks at is looked for, in seconds.
_TIDY = 15.0


def create_app(settings: ServeSettings) -> FastAPI:
    """The application; its workers start and its working folder is made when it starts, and go with it."""
    app = FastAPI(
        title="momkd", version=version("momkd"), description=_ABOUT, docs_url=None, redoc_url=None, lifespan=_lifespan
    )
    app.state.settings, app.state.failure = settings, ""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files("momkd.serve") / "static")), name="static")
    app.add_api_route("/", _page, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/docs", _docs, include_in_schema=False, response_class=HTMLResponse)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.middleware("http")(_counted)
    app.add_middleware(Patience, seconds=settings.max_silence)
    app.add_middleware(Guard, token=settings.token)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServeSettings = app.state.settings
    if settings.work is not None:
        settings.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="momkd-serve-", dir=settings.work, ignore_cleanup_errors=True) as folder:
        service = Service(settings, Path(folder))
        try:
            try:
                await service.start()
            except ServeError as error:
                app.state.failure = str(error)
                raise
            app.state.service = service
            tidying = asyncio.create_task(_tidy(service))
            yield
            tidying.cancel()
            with suppress(asyncio.CancelledError):
                await tidying
        finally:
            await asyncio.to_thread(service.stop)


async def _tidy(service: Service) -> None:
    while True:
        await asyncio.sleep(_TIDY)
        service.tidy()


async def _counted(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    start = time.perf_counter()
    answer = await go_on(request)
    route = getattr(request.scope.get("route"), "path", "other")
    service: Service = request.app.state.service
    service.metrics.answered(request.method, route, answer.status_code, time.perf_counter() - start)
    return answer


async def _page() -> HTMLResponse:
    return HTMLResponse((files("momkd.serve") / "static" / "index.html").read_text(encoding="utf-8"))


async def _docs(request: Request) -> HTMLResponse:
    return HTMLResponse(handbook(request.app.openapi()))


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if request.method == "POST":
        # What is left of the body is not read.
        headers["connection"] = "close"
    return JSONResponse({"error": str(getattr(error, "detail", error))}, status, headers)


async def _misunderstood(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    words = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found)
    return JSONResponse({"error": words}, 422)
