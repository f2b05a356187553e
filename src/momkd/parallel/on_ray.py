"""Tasks over a Ray cluster: one Ray task each, retried where a node or a process is lost.

Every node must see the same files under the same names (a shared file system), and have this momkd installed. A task
that is done again goes on from what is on disk, as a call after a crash does, so it leaves the same bytes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from logging.handlers import QueueHandler
from typing import Any

from momkd.errors import ClusterError
from momkd.parallel.local import Failure, News, failure_of
from momkd.parallel.place import Place, Watch, Work
from momkd.parallel.stopping import StopRequested, stoppable

_RETRIES = 3
# How often the driver looks for news, and a task sends them, in seconds.
_LOOK = 0.5


def run_on_ray(
    tasks: Sequence[Any], make_context: Callable[[], Any], work: Work, *, place: Place, watch: Watch
) -> None:
    """Do every task as a Ray task. See ``run_tasks``; raises ClusterError without Ray or where none answers."""
    if find_spec("ray") is None:
        raise ClusterError(f"--on {place.on} needs Ray: pip install 'momkd[cluster]'")
    import ray
    from ray.util.queue import Queue

    with _connected(place), stoppable() as stopping:
        shared = ray.put((make_context, work))
        news = Queue(actor_options={"num_cpus": 0})
        remote = ray.remote(num_cpus=place.cpus, num_gpus=place.gpus, max_retries=_RETRIES)(_one)
        # In a list Ray passes the reference on, and a process fetches the context once for all its tasks.
        waiting = [remote.remote([shared], task, news) for task in tasks]
        try:
            while waiting:
                if stopping():
                    raise StopRequested
                ended, waiting = ray.wait(waiting, num_returns=1, timeout=_LOOK)
                _pass_on(news, watch)
                for one in ended:
                    found = _result(one)
                    if isinstance(found, Failure):
                        _pass_on(news, watch)
                        found.reraise()
            _pass_on(news, watch)
        finally:
            for one in waiting:
                ray.cancel(one, force=True)
            news.shutdown(force=True)


def _result(reference: Any) -> Failure | None:
    import ray

    try:
        found: Failure | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        # A task that lost its process or node more often than it is retried.
        words = str(error).strip().splitlines()
        return Failure(f"a task was lost {_RETRIES + 1} times: {words[-1] if words else error!r}", expected=True)
    return found


class _Mail:
    """News on their way to the driver, sent together: each call of Ray costs milliseconds on both sides."""

    def __init__(self, news: Any) -> None:
        self._news, self._kept, self._sent = news, [], time.monotonic()  # type: ignore[var-annotated]

    def put_nowait(self, item: Any) -> None:
        """Keep an item; what a ``QueueHandler`` calls."""
        self._kept.append(item)
        if time.monotonic() - self._sent >= _LOOK:
            self.send()

    def send(self) -> None:
        """Send what was kept."""
        kept, self._kept, self._sent = self._kept, [], time.monotonic()
        if kept:
            self._news.put_nowait_batch(kept)


def _one(shared: list[Any], task: Any, news: Any) -> Failure | None:
    """Runs in a process of the cluster."""
    mail, logger = _Mail(news), logging.getLogger("momkd")
    handler = QueueHandler(mail)  # type: ignore[arg-type]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        context, work = _context(shared[0])
        work(context, task, lambda item: mail.put_nowait(News(item)))
    except Exception as error:  # noqa: BLE001 - a process border: whatever it was, the driver must hear of it
        return failure_of(error)
    finally:
        logger.removeHandler(handler)
        mail.send()
    return None


@lru_cache(maxsize=1)
def _context(shared: Any) -> tuple[Any, Work]:
    import ray

    make_context, work = ray.get(shared)
    return make_context(), work


def _pass_on(news: Any, watch: Watch) -> None:
    for item in news.get_nowait_batch(news.qsize()):
        if isinstance(item, News):
            watch(item.item)
        elif isinstance(item, logging.LogRecord):
            logging.getLogger(item.name).handle(item)


@contextmanager
def _connected(place: Place) -> Iterator[None]:
    """Use the Ray that is there, or start one and end it."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _handler_kept():
            if place.on == "ray":
                count = place.workers or os.cpu_count() or 1
                ray.init(num_cpus=count, include_dashboard=False, **quiet)
            else:
                ray.init(address=place.on, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"--on {place.on}: no Ray answers there: {error} → start one (ray start --head), or use --on ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and for good; what runs here saves at it (``stopping.py``), so it is given back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
