"""Patches of a slide, read ahead by threads: a few batches in memory, never the slide."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from momkd.extract.faults import fault

# Neighbours share tiles of the file, which a reader decodes once if it reads them one after another.
_RUN = 8
_AHEAD, _AHEAD_BYTES = 3, 256e6


def stream_patches(
    reader: Any, requests: Sequence[Any], size: int, *, batch_size: int, workers: int
) -> Generator[np.ndarray, None, None]:
    """Yield batches (b, size, size, 3) uint8 of the requested patches, in order, b at most ``batch_size``.

    ``workers`` threads read ahead, each with its own copy of wsidata's ``reader``, so that readers need not be
    thread-safe; the number of threads changes nothing else. At most three batches wait, fewer if they are large. Raises
    ExtractError naming the first patch that cannot be read.
    """
    threads = _Readers(reader)
    ahead = max(1, min(_AHEAD, int(_AHEAD_BYTES / (batch_size * size * size * 3))))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    queue: deque[tuple[np.ndarray, list[Future[None]]]] = deque()
    try:
        for start in range(0, len(requests), batch_size):
            wanted = requests[start : start + batch_size]
            batch = np.empty((len(wanted), size, size, 3), np.uint8)
            runs = range(0, len(wanted), _RUN)
            queue.append((batch, [pool.submit(threads.fill, batch[i : i + _RUN], wanted[i : i + _RUN]) for i in runs]))
            if len(queue) > ahead:
                yield _finished(*queue.popleft())
        while queue:
            yield _finished(*queue.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        threads.close()


def _finished(batch: np.ndarray, parts: list[Future[None]]) -> np.ndarray:
    for part in parts:
        part.result()
    return batch


class _Readers:
    """One copy of a reader for every thread that asks; wsidata's readers are copied closed and open when used."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._mine = threading.local()
        self._all: list[Any] = []
        self._lock = threading.Lock()

    def fill(self, into: np.ndarray, requests: Sequence[Any]) -> None:
        """Read each request into its place of ``into`` (n, size, size, 3)."""
        reader = self._own()
        for place, request in zip(into, requests, strict=True):
            try:
                pixels = reader.get_region(request.x, request.y, request.width, request.height, level=request.level)
            except Exception as error:  # a reader may raise anything
                raise fault(f"patch at ({request.x}, {request.y})", f"cannot be read: {error}") from error
            if pixels.shape != (request.height, request.width, 3):
                found, expected = str(pixels.shape), f"pixels of shape ({request.height}, {request.width}, 3)"
                raise fault(f"patch at ({request.x}, {request.y})", found, expected)
            place[:] = request.resize(pixels)

    def close(self) -> None:
        """Close every copy."""
        for reader in self._all:
            reader.detach_reader()

    def _own(self) -> Any:
        if not hasattr(self._mine, "reader"):
            self._mine.reader = copy.copy(self._reader)
            with self._lock:
                self._all.append(self._mine.reader)
        return self._mine.reader
