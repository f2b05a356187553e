"""One download a folder at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from momkd.errors import GdcError


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, which the system lets go of when the process ends, however it ends.

    Raises GdcError naming the holder where another process has it. Where files cannot be locked (Windows, some network
    file systems) nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
            raise GdcError(f"{path.parent}: {holder} is downloading here → wait for it, or stop it") from error
        except OSError:
            yield
            return
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{socket.gethostname()}, process {os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
