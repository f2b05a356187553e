"""Reading that hides behind computing: an iterator that runs ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

# How often a waiting thread looks whether it is still wanted, in seconds.
_LOOK = 0.1


class _End:
    """What the thread puts last: how the iterator ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield ``items`` in their order while a thread computes up to ``depth`` of them in advance.

    What is yielded is what ``items`` would give; only the thread that computes it differs, so ``items`` must not draw
    from the global random state, and nobody else may use what it uses until this iterator is exhausted or closed. An
    exception of ``items`` is raised here, at its place in the order. Closing (``break``, an error of the consumer,
    Ctrl-C) ends the thread before it returns.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; expected 1 or more")
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    unwanted = threading.Event()
    thread = threading.Thread(target=_run, args=(items, ready, unwanted), name="momkd-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        unwanted.set()
        thread.join()


def _run(items: Iterator[T], ready: queue.Queue[T | _End], unwanted: threading.Event) -> None:
    """The thread: computes items until there is no more, one fails, or nobody wants them."""
    end = _End(None)
    try:
        for item in items:
            if not _put(ready, item, unwanted):
                return
    except BaseException as error:  # noqa: BLE001 - a thread's border: whatever it was is raised by the consumer
        end = _End(error)
    _put(ready, end, unwanted)


def _put(ready: queue.Queue[T | _End], item: T | _End, unwanted: threading.Event) -> bool:
    """Put an item where there is room; False if it was no longer wanted."""
    while not unwanted.is_set():
        try:
            ready.put(item, timeout=_LOOK)
        except queue.Full:
            continue
        return True
    return False
