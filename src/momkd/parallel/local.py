"""Tasks over processes of this machine. Which process does a task, and how many there are, changes no result."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

from momkd.errors import MomkdError, RunError
from momkd.parallel.place import Watch, Work
from momkd.parallel.stopping import PATIENCE, StopRequested, stoppable

# How often the parent looks whether a worker died or SIGTERM came, in seconds.
_LOOK = 0.5


@dataclass(frozen=True)
class News:
    """What a task tells, on its way between processes."""

    item: Any


@dataclass(frozen=True)
class Failure:
    """An error of a worker, in a form that survives pickling between our own processes."""

    message: str
    expected: bool

    def reraise(self) -> None:
        """Raise it here."""
        raise RunError(self.message) if self.expected else RuntimeError(self.message)


def failure_of(error: Exception) -> Failure:
    """The failure that tells of an error: ours in its words, another with where it happened."""
    if isinstance(error, MomkdError):
        return Failure(str(error), expected=True)
    import traceback

    words = "".join(traceback.format_exception(error))
    return Failure(f"{error!r}\n{words}", expected=False)


def run_here(tasks: Sequence[Any], make_context: Callable[[], Any], work: Work, *, workers: int, watch: Watch) -> None:
    """Do every task; with one worker in this process, else in ``workers`` fresh ones. See ``run_tasks``."""
    with stoppable() as stopping:
        if workers <= 1 or len(tasks) <= 1:
            _in_this_process(tasks, make_context, work, watch, stopping)
        else:
            _in_others(tasks, make_context, work, min(workers, len(tasks)), watch, stopping)


def _in_this_process(
    tasks: Sequence[Any],
    make_context: Callable[[], Any],
    work: Work,
    watch: Watch,
    stopping: Callable[[], bool],
) -> None:
    def tell(item: Any) -> None:
        watch(item)
        if stopping():
            raise StopRequested

    context = make_context()
    for task in tasks:
        work(context, task, tell)


def _in_others(
    tasks: Sequence[Any],
    make_context: Callable[[], Any],
    work: Work,
    count: int,
    watch: Watch,
    stopping: Callable[[], bool],
) -> None:
    spawn = multiprocessing.get_context("spawn")
    todo: Queue[Any] = spawn.Queue()
    news: Queue[Any] = spawn.Queue()
    contexts: Queue[Any] = spawn.Queue()
    for task in tasks:
        todo.put(task)
    for _ in range(count):
        todo.put(None)
        contexts.put((make_context, work))
    processes = [spawn.Process(target=_serve, args=(contexts, todo, news), daemon=True) for _ in range(count)]
    try:
        for process in processes:
            process.start()
        _follow(processes, news, watch, stopping)
    except StopRequested:
        _let_save(processes, news)
        raise
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _follow(processes: Sequence[BaseProcess], news: Queue[Any], watch: Watch, stopping: Callable[[], bool]) -> None:
    """Pass on what workers report until each has said that it is finished."""
    unfinished = len(processes)
    while unfinished:
        if stopping():
            raise StopRequested
        try:
            item = news.get(timeout=_LOOK)
        except queue.Empty:
            dead = [process for process in processes if process.exitcode not in (None, 0)]
            if dead:
                code = dead[0].exitcode
                hint = " (killed; out of memory?)" if code == -9 else ""
                raise RunError(
                    f"a worker process ended with exit code {code}{hint}; run the same command again to go on, "
                    "with fewer --workers if memory is short"
                ) from None
            continue
        if item is None:
            unfinished -= 1
        elif isinstance(item, Failure):
            item.reraise()
        elif isinstance(item, News):
            watch(item.item)
        elif isinstance(item, logging.LogRecord):
            logging.getLogger(item.name).handle(item)


def _let_save(processes: Sequence[BaseProcess], news: Queue[Any]) -> None:
    """Pass SIGTERM on, and give the workers time to save; their news is taken, or they could not end."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + PATIENCE
    while any(process.is_alive() for process in processes) and time.monotonic() < until:
        try:
            news.get(timeout=0.05)
        except queue.Empty:
            continue


def _serve(contexts: Queue[Any], todo: Queue[Any], news: Queue[Any]) -> None:
    """One worker process: make the context once, then take tasks until none is left; its log goes to the parent."""
    logger = logging.getLogger("momkd")
    logger.addHandler(QueueHandler(news))
    logger.setLevel(logging.INFO)
    parent = multiprocessing.parent_process()
    with stoppable() as stopping:

        def tell(item: Any) -> None:
            # Killed, the parent ends no worker; one that went on would write into a run that another call has resumed.
            if parent is not None and not parent.is_alive():
                news.cancel_join_thread()
                raise SystemExit(1)
            news.put(News(item))
            if stopping():
                raise StopRequested

        try:
            make_context, work = contexts.get()
            context = make_context()
            while (task := todo.get()) is not None:
                work(context, task, tell)
            news.put(None)
        except (KeyboardInterrupt, StopRequested):
            pass  # the parent got it too, and says so
        except Exception as error:  # noqa: BLE001 - a process border: whatever it was, the parent must hear of it
            news.put(failure_of(error))
