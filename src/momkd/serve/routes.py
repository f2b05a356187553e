"""The HTTP API: one function a route."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from momkd.serve import answers
from momkd.serve.answers import refuse
from momkd.serve.jobs import Job, Service
from momkd.serve.tasks import Catalogue, Inspect, Patch, Predict, Source, Tile
from momkd.serve.uploads import Upload, check_name, check_size, receive

router = APIRouter()
_FOREVER = {"cache-control": "private, max-age=3600"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Error, "description": words}
    for status, words in {
        400: "not a plain file name, or a broken request",
        404: "no such model, slide, job or file",
        413: "larger than --max-upload",
        415: "not a file of a known type",
        422: "the file, or what was asked of it, cannot be used",
        429: "too much is waiting",
    }.items()
}


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _job(job: str, service: Annotated[Service, Depends(_service)]) -> Job:
    if job not in service.jobs:
        raise refuse(404, "no such job: it was removed, or has not been looked at for long")
    found = service.jobs[job]
    found.touched = time.monotonic()
    return found


def _explained(job: Annotated[Job, Depends(_job)]) -> Job:
    if job.result is None:
        raise refuse(409, f"the job is {job.state}" + (f": {job.error}" if job.error else ""))
    return job


TheService = Annotated[Service, Depends(_service)]
AJob = Annotated[Job, Depends(_job)]
ExplainedJob = Annotated[Job, Depends(_explained)]
FileName = Annotated[str, Query(description="The file's name with its suffix; the slide's id is what comes before it.")]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/health", tags=["service"])
async def health(service: TheService) -> answers.Health:
    """Whether the service and its workers live; needs no token."""
    alive = service.quick.alive and service.thorough.alive
    waiting = service.quick.waiting + service.thorough.waiting
    return answers.Health(status="ok" if alive else "degraded", version=version("momkd"), waiting=waiting)


@router.get("/metrics", tags=["service"], response_class=Response)
async def metrics(service: TheService) -> Response:
    """Numbers for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/api/models", tags=["predict"])
async def models(service: TheService) -> list[answers.Model]:
    """The students that are served, by their cards."""
    return [answers.Model.model_validate(card) for card in service.quick.models.values()]


@router.get("/api/slides", tags=["predict"])
async def slides(service: TheService) -> list[answers.Choice]:
    """The slides at hand (--features, --slides)."""
    found: list[Source] = await service.ask(Catalogue())
    return [
        answers.Choice(slide_id=one.slide_id, features=one.features is not None, slide=one.slide is not None)
        for one in found
    ]


@router.post("/api/predict", tags=["predict"], responses=_ERRORS, openapi_extra=_BODY)
async def predict(service: TheService, request: Request, model: str, name: FileName) -> answers.Prediction:
    """Score the feature file in the body; nothing is kept."""
    _check_model(service, model)
    upload = await _receive(service, request, name, features_only=True)
    try:
        found = await service.ask(Predict(model, upload.path))
    finally:
        upload.remove()
    return answers.Prediction.model_validate(found)


@router.post("/api/uploads", tags=["explain"], status_code=201, responses=_ERRORS, openapi_extra=_BODY)
async def send(service: TheService, request: Request, name: FileName) -> answers.Received:
    """Send a slide or a feature file in the body, to explain it with a job."""
    service.tidy()
    if len(service.uploads) >= 2 * service.settings.max_jobs:
        raise refuse(429, f"{len(service.uploads)} files were sent and not used; remove some, or wait")
    upload = await _receive(service, request, name)
    try:
        facts = await service.ask(Inspect(upload.path, service.settings.max_upload))
    except BaseException:
        upload.remove()
        raise
    upload.kind = facts.pop("kind")
    service.uploads[upload.id] = upload
    return answers.Received(
        upload=upload.id, name=upload.name, slide_id=upload.slide_id, size=upload.size, kind=upload.kind, facts=facts
    )


@router.delete("/api/uploads/{upload}", tags=["explain"], status_code=204, responses={404: _ERRORS[404]})
async def unsend(service: TheService, upload: str) -> None:
    """Remove a file that was sent."""
    service.drop(_upload(service, upload))


@router.post("/api/jobs", tags=["explain"], status_code=202, responses=_ERRORS)
async def order(service: TheService, order: answers.Order) -> answers.Job:
    """Explain a slide at hand, or files that were sent: features, a slide, or both of one slide."""
    _check_model(service, order.model)
    if (order.slide_id is None) == (not order.uploads):
        raise refuse(422, "expected either slide_id or uploads")
    sent = [_upload(service, one) for one in order.uploads]
    source = await _at_hand(service, order.slide_id) if order.slide_id is not None else _source_of(sent)
    return service.order(order.model, source, sent).told()


@router.get("/api/jobs/{job}", tags=["explain"], responses={404: _ERRORS[404]})
async def state(job: AJob) -> answers.Job:
    """How far a job is."""
    return job.told()


@router.delete("/api/jobs/{job}", tags=["explain"], status_code=204, responses={404: _ERRORS[404]})
async def forget(service: TheService, job: AJob) -> None:
    """Stop a job, or remove what it made; files that were sent for it go as well."""
    service.forget(job)


@router.get("/api/jobs/{job}/result", tags=["explain"], responses={404: _ERRORS[404]})
async def result(job: ExplainedJob) -> answers.Result:
    """What is said of the slide; 409 while the job is not done."""
    return answers.Result.model_validate(job.result)


@router.get("/api/jobs/{job}/view", tags=["explain"], response_class=FileResponse, responses={404: _ERRORS[404]})
async def view(job: ExplainedJob) -> FileResponse:
    """What the page draws (src/momkd/serve/view.py says how it is coded)."""
    return FileResponse(job.folder / "view.json", media_type="application/json", headers=_FOREVER)


@router.get(
    "/api/jobs/{job}/files/{name}", tags=["explain"], response_class=FileResponse, responses={404: _ERRORS[404]}
)
async def file(job: ExplainedJob, name: str) -> FileResponse:
    """A file of the result: patches.csv, patches.geojson, a heatmap …"""
    if job.result is None or name not in job.result["files"]:
        raise refuse(404, "no such file; the result lists them")
    return FileResponse(job.folder / name, filename=f"{job.source.slide_id}.{name}")


@router.get("/api/jobs/{job}/tiles/{level}/{column}_{row}.jpg", tags=["explain"], response_class=Response)
async def tile(service: TheService, job: ExplainedJob, level: int, column: int, row: int) -> Response:
    """A square of the slide, by the numbers of Deep Zoom."""
    return _picture(await service.ask(Tile(job.source, level, column, row)))


@router.get("/api/jobs/{job}/patch.jpg", tags=["explain"], response_class=Response)
async def patch(
    service: TheService, job: ExplainedJob, x: int, y: int, side: Annotated[float, Query(gt=0)]
) -> Response:
    """The pixels of a patch; corner and side in level-0 pixels."""
    return _picture(await service.ask(Patch(job.source, x, y, side)))


def _picture(jpeg: bytes) -> Response:
    return Response(jpeg, media_type="image/jpeg", headers=_FOREVER)


def _check_model(service: Service, model: str) -> None:
    if model not in service.quick.models:
        raise refuse(404, f"no such model; served are {', '.join(service.quick.models)}")


def _upload(service: Service, upload: str) -> Upload:
    if upload not in service.uploads:
        raise refuse(404, "no such upload: it was used by a job, removed, or has not been used for long")
    return service.uploads[upload]


async def _receive(service: Service, request: Request, name: str, *, features_only: bool = False) -> Upload:
    most = service.settings.max_upload
    suffix = check_name(name, features_only=features_only)
    check_size(request.headers.get("content-length"), most, service.work)
    try:
        return await receive(_body(request), name, suffix, service.incoming, most)
    except ClientDisconnect as error:
        silence = service.settings.max_silence
        told = f"{name}: the sender went away, or sent nothing for {silence:g} s (--max-silence), before the end"
        raise refuse(408, told) from error


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


async def _at_hand(service: Service, slide_id: str) -> Source:
    for one in await service.ask(Catalogue()):
        if one.slide_id == slide_id:
            return Source(one.slide_id, one.features, one.slide, one.mpp)
    raise refuse(404, f"slide {slide_id[:80]!r} is not at hand; /api/slides lists those that are")


def _source_of(sent: list[Upload]) -> Source:
    paths: dict[str, Path] = {}
    for upload in sent:
        if upload.kind in paths:
            raise refuse(422, f"{upload.name}: a second file of the same kind; expected features and their slide")
        paths[upload.kind] = upload.path
    names = {upload.slide_id for upload in sent}
    if len(names) > 1:
        raise refuse(422, f"{' and '.join(sorted(names))}: expected one name, because features belong to one slide")
    return Source(names.pop(), paths.get("features"), paths.get("slide"))
