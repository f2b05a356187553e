"""Jobs and sent files while they are kept, and the workers that they are for."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from momkd.errors import ServeError
from momkd.serve import answers
from momkd.serve.answers import State, refuse
from momkd.serve.metrics import Metrics
from momkd.serve.process import Broken, Cancelled, Refused, Ticket, TooLong, WorkerProcess
from momkd.serve.settings import ServeSettings
from momkd.serve.tasks import Explain, Progress, Source, Task
from momkd.serve.uploads import Upload

# Short tasks (a prediction, a tile) that may stand in line before more are refused.
_LINE = 512
# A file that takes a reader longer is broken, or made to.
_QUICK_SECONDS = 120.0


@dataclass(eq=False)
class Job:
    """A slide that is being explained, or was."""

    model: str
    source: Source
    folder: Path
    uploads: list[Upload]
    id: str
    state: State = "waiting"
    progress: Progress = field(default_factory=lambda: Progress("waiting"))
    error: str | None = None
    result: dict[str, Any] | None = None
    ticket: Ticket | None = None
    touched: float = field(default_factory=time.monotonic)

    def told(self) -> answers.Job:
        """How far it is."""
        return answers.Job(
            job=self.id,
            model=self.model,
            slide_id=self.source.slide_id,
            state=self.state,
            stage=self.progress.stage,
            done=self.progress.done,
            total=self.progress.total,
            error=self.error,
        )


class Service:
    """What the routes speak with. Its two workers load the same models: one answers at once, one explains."""

    def __init__(self, settings: ServeSettings, work: Path) -> None:
        self.settings, self.work = settings, work
        self.quick = WorkerProcess("quick", settings, min(_QUICK_SECONDS, settings.max_seconds))
        self.thorough = WorkerProcess("thorough", settings, settings.max_seconds)
        self.metrics = Metrics(self.quick, self.thorough)
        self.jobs: dict[str, Job] = {}
        self.uploads: dict[str, Upload] = {}

    @property
    def incoming(self) -> Path:
        """Where sent files are written."""
        return self.work / "uploads"

    async def start(self) -> None:
        """Load the models in both workers; raises ServeError."""
        await asyncio.gather(asyncio.to_thread(self.quick.start), asyncio.to_thread(self.thorough.start))

    def stop(self) -> None:
        """End the workers and forget everything that was sent and made."""
        self.quick.stop()
        self.thorough.stop()
        for job in list(self.jobs.values()):
            self.forget(job)
        for upload in list(self.uploads.values()):
            self.drop(upload)

    async def ask(self, task: Task) -> Any:
        """A short task's answer; raises 422 for what is sent, 429 when too many wait, 500 and 504 for the worker."""
        if self.quick.waiting >= _LINE:
            raise refuse(429, "too many requests are waiting; try again")
        ticket = self.quick.submit(task)
        try:
            return await asyncio.wrap_future(ticket.future)
        except Refused as error:
            raise refuse(422, self._clean(str(error))) from error
        except TooLong as error:
            raise refuse(504, str(error)) from error
        except (Broken, Cancelled, ServeError) as error:
            raise refuse(500, str(error)) from error
        except asyncio.CancelledError:
            ticket.future.cancel()
            raise

    def order(self, model: str, source: Source, uploads: list[Upload]) -> Job:
        """Put a slide in line to be explained; raises 429 when too many wait."""
        self.tidy()
        if len(self.jobs) >= self.settings.max_jobs and not self._drop_oldest():
            raise refuse(429, f"{len(self.jobs)} jobs are waiting or running (--max-jobs); try again later")
        name = secrets.token_urlsafe(12)
        job = Job(model, source, self.work / "jobs" / name, uploads, name)
        job.folder.mkdir(parents=True)
        for upload in uploads:
            self.uploads.pop(upload.id, None)
        self.jobs[job.id] = job
        job.ticket = self.thorough.submit(Explain(model, source, job.folder), watch=_watching(job))
        job.ticket.future.add_done_callback(lambda _: self._finish(job))
        return job

    def forget(self, job: Job) -> None:
        """Stop a job and remove what it made, and the files that were sent for it."""
        self.jobs.pop(job.id, None)
        if job.ticket is not None and not job.ticket.future.done():
            # A worker that is at it is ended first; then the folder goes (see _finish).
            job.ticket.cancel()
            return
        self._remove(job)

    def drop(self, upload: Upload) -> None:
        """Remove a sent file."""
        self.uploads.pop(upload.id, None)
        upload.remove()

    def tidy(self) -> None:
        """Forget what nobody has looked at for long."""
        before = time.monotonic() - 60.0 * self.settings.keep_minutes
        for job in [job for job in self.jobs.values() if job.touched < before and job.state in ("done", "failed")]:
            self.forget(job)
        for upload in [upload for upload in self.uploads.values() if upload.touched < before]:
            self.drop(upload)

    def _drop_oldest(self) -> bool:
        ended = [job for job in self.jobs.values() if job.state in ("done", "failed")]
        if ended:
            self.forget(min(ended, key=lambda job: job.touched))
        return bool(ended)

    def _finish(self, job: Job) -> None:
        """Called by the worker's thread when a job has ended, however."""
        if job.ticket is None or job.ticket.future.cancelled():
            return
        error = job.ticket.future.exception()
        if error is None:
            job.result = job.ticket.future.result()
        elif isinstance(error, Cancelled):
            job.error = "stopped"
        else:
            job.error = self._clean(str(error))
        job.touched = time.monotonic()
        job.state = "done" if error is None else "failed"
        self.metrics.job_ended(job.state)
        if job.id not in self.jobs:
            self._remove(job)

    def _remove(self, job: Job) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)
        for upload in job.uploads:
            upload.remove()

    def _clean(self, message: str) -> str:
        """A message without the paths of this machine: a name says as much to who sent the file."""
        message = re.sub(rf"{re.escape(str(self.work))}/\w+/[^/]+/", "", message)
        for folder in (*self.settings.features, *self.settings.slides):
            message = message.replace(f"{Path(folder)}/", "").replace(f"{Path(folder).parent}/", "")
        return message


def _watching(job: Job) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        job.state, job.progress = "running", progress

    return watch
