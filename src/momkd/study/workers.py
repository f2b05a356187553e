"""Folds over local processes. Which process does a fold, and how many there are, changes no result."""

from __future__ import annotations

import logging
import multiprocessing
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

from momkd.errors import MomkdError, RunError
from momkd.study.events import Event, Watcher

# (context made once a process, task, watcher) → nothing; results are files.
Work = Callable[[Any, Any, Watcher], None]


@dataclass(frozen=True)
class _Failure:
    """An error of a worker, in a form that survives pickling between our own processes."""

    message: str
    expected: bool


def run_tasks(
    tasks: Sequence[Any], make_context: Callable[[], Any], work: Work, *, workers: int, watch: Watcher
) -> None:
    """Do every task; with one worker in this process, else in ``workers`` fresh ones.

    ``make_context`` is called once a process and must be picklable, as must ``work`` and tasks; it may be large, since
    it goes through a queue while the processes start. The first error stops everything and is raised here; so does
    Ctrl-C.
    """
    if workers <= 1 or len(tasks) <= 1:
        context = make_context()
        for task in tasks:
            work(context, task, watch)
        return
    spawn = multiprocessing.get_context("spawn")
    todo: Queue[Any] = spawn.Queue()
    news: Queue[Any] = spawn.Queue()
    contexts: Queue[Any] = spawn.Queue()
    for task in tasks:
        todo.put(task)
    count = min(workers, len(tasks))
    for _ in range(count):
        todo.put(None)
        contexts.put((make_context, work))
    processes = [spawn.Process(target=_serve, args=(contexts, todo, news), daemon=True) for _ in range(count)]
    try:
        for process in processes:
            process.start()
        _follow(processes, news, watch)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()


def _follow(processes: Sequence[BaseProcess], news: Queue[Any], watch: Watcher) -> None:
    """Pass on what workers report until each has said that it is finished."""
    unfinished = len(processes)
    while unfinished:
        try:
            item = news.get(timeout=0.5)
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
        elif isinstance(item, _Failure):
            raise RunError(item.message) if item.expected else RuntimeError(item.message)
        elif isinstance(item, Event):
            watch(item)
        elif isinstance(item, logging.LogRecord):
            logging.getLogger(item.name).handle(item)


def _serve(contexts: Queue[Any], todo: Queue[Any], news: Queue[Any]) -> None:
    """One worker process: make the context once, then take tasks until none is left; its log goes to the parent."""
    logger = logging.getLogger("momkd")
    logger.addHandler(QueueHandler(news))
    logger.setLevel(logging.INFO)
    parent = multiprocessing.parent_process()

    def tell(event: Event) -> None:
        # Killed, the parent ends no worker; one that went on would write into a run that another call has resumed.
        if parent is not None and not parent.is_alive():
            news.cancel_join_thread()
            raise SystemExit(1)
        news.put(event)

    try:
        make_context, work = contexts.get()
        context = make_context()
        while (task := todo.get()) is not None:
            work(context, task, tell)
        news.put(None)
    except MomkdError as error:
        news.put(_Failure(str(error), expected=True))
    except KeyboardInterrupt:
        pass  # the parent got it too, and says so
    except Exception as error:  # noqa: BLE001 - a process border: whatever it was, the parent must hear of it
        import traceback

        news.put(_Failure(f"{error!r}\n{traceback.format_exc()}", expected=False))
