"""A worker process as the web side sees it: tasks in their order, progress, a time limit, a new one where it dies."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from momkd.errors import ServeError
from momkd.serve.settings import ServeSettings
from momkd.serve.tasks import Done, Failed, Progress, Ready, Task

_LOG = logging.getLogger("momkd.serve")
# How often a waiting thread looks whether a task was stopped or is too late, in seconds.
_LOOK = 0.2

Watch = Callable[[Progress], None]


class Refused(Exception):  # noqa: N818 - not at fault: who asked is
    """What was asked or sent cannot be used; the message says why."""


class Broken(Exception):  # noqa: N818
    """The worker failed at a task: a fault of the service, a crash, or its end."""


class TooLong(Exception):  # noqa: N818
    """The task took longer than it may."""


class Cancelled(Exception):  # noqa: N818
    """Somebody no longer wants the task."""


@dataclass(eq=False)
class Ticket:
    """A task that waits or runs; ``future`` gets its answer."""

    task: Task
    watch: Watch
    future: Future[Any] = field(default_factory=Future)
    unwanted: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Drop the task; a worker that is at it is ended."""
        self.unwanted.set()


class WorkerProcess:
    """One process and the thread that speaks with it; a task that takes ``most_seconds`` ends with the process."""

    def __init__(self, name: str, settings: ServeSettings, most_seconds: float) -> None:
        self.name, self._settings, self._most_seconds = name, settings, most_seconds
        self._tickets: queue.Queue[Ticket | None] = queue.Queue()
        self._context = multiprocessing.get_context("spawn")
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._serve, name=f"momkd-{name}", daemon=True)
        self.models: Mapping[str, Mapping[str, Any]] = {}
        self.restarts = 0

    def start(self) -> None:
        """Start the process and wait until its models are loaded; raises ServeError where they cannot be."""
        self._spawn()
        self._thread.start()

    def submit(self, task: Task, watch: Watch | None = None) -> Ticket:
        """Put a task at the end of the line."""
        ticket = Ticket(task, watch or _nobody)
        self._tickets.put(ticket)
        return ticket

    @property
    def waiting(self) -> int:
        """How many tasks stand in line."""
        return self._tickets.qsize()

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process; tasks in line end as broken."""
        self._tickets.put(None)
        self._kill()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _spawn(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(other, self._settings), daemon=True, name=self.name)
        self._process.start()
        other.close()
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ServeError(f"the {self.name} worker ended while it loaded the models: {error}") from error
        if not isinstance(answer, Ready):
            self._kill()
            raise ServeError(str(getattr(answer, "message", answer)))
        self.models = answer.models

    def _kill(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _serve(self) -> None:
        while (ticket := self._tickets.get()) is not None:
            if not ticket.future.set_running_or_notify_cancel() or ticket.unwanted.is_set():
                _end(ticket, Cancelled())
                continue
            try:
                if not self.alive:
                    self.restarts += 1
                    self._spawn()
                value = self._one(ticket)
            except (Refused, Broken, TooLong, Cancelled, ServeError) as error:
                _end(ticket, error)
            else:
                ticket.future.set_result(value)
        while not self._tickets.empty():
            left = self._tickets.get()
            if left is not None:
                _end(left, Broken("the service is stopping"))

    def _one(self, ticket: Ticket) -> Any:
        pipe, deadline = self._pipe, time.monotonic() + self._most_seconds
        if pipe is None:
            raise Broken("the worker has not started")
        try:
            pipe.send(ticket.task)
            while True:
                if ticket.unwanted.is_set():
                    self._kill()
                    raise Cancelled
                if time.monotonic() > deadline:
                    self._kill()
                    raise TooLong(f"it took longer than {self._most_seconds:g} s")
                if not pipe.poll(_LOOK):
                    continue
                answer = pipe.recv()
                if isinstance(answer, Progress):
                    ticket.watch(answer)
                elif isinstance(answer, Done):
                    return answer.value
                elif isinstance(answer, Failed):
                    raise Refused(answer.message) if answer.refused else Broken(answer.message)
        except (EOFError, OSError) as error:
            self._kill()
            code = None if self._process is None else self._process.exitcode
            _LOG.error("the %s worker ended at %s, exit code %s", self.name, type(ticket.task).__name__, code)
            raise Broken(f"the worker ended (exit code {code}), perhaps for want of memory") from error


def _work(pipe: Connection, settings: ServeSettings) -> None:
    # Imported in the new process only: the web side does without torch.
    from momkd.serve.worker import work

    work(pipe, settings)


def _end(ticket: Ticket, error: Exception) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)


def _nobody(progress: Progress) -> None:
    """Watch nothing."""
