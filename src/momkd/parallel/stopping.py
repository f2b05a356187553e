"""SIGTERM, as schedulers send it before they kill: finish the step at hand, save, end.

Slurm, Kubernetes and Ray give some seconds between SIGTERM and SIGKILL. Work that goes in steps asks its watcher at the
end of each; the watcher raises StopRequested there, and the work saves and lets it pass. Work that has not come to the
end of a step in time ends anyway: what is on disk is whole, and is where the next call goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Within the ten seconds that the mildest schedulers give.
PATIENCE = 8.0
EXIT_CODE = 128 + signal.SIGTERM


class StopRequested(BaseException):
    """SIGTERM came. No Exception, as KeyboardInterrupt is none: what handles errors must let it pass."""


@contextmanager
def stoppable(patience: float = PATIENCE) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come; ``patience`` seconds after it the process ends.

    Where another handler is set, or outside the main thread, which alone may set one, it never says so.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield came.is_set
        return
    end = threading.Timer(patience, os._exit, (EXIT_CODE,))
    end.daemon = True

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler is given
        if not came.is_set():
            came.set()
            end.start()

    signal.signal(signal.SIGTERM, note)
    try:
        yield came.is_set
    finally:
        end.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
