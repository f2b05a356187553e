"""One process at a time: several runs of one command may share a folder, and none starts what another is doing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[str | None]:
    """Hold the lock file ``path``: yield None, or the words of who holds it ("host, process 12") and hold nothing.

    ``wait``: rather wait for it.

    The system lets go of the lock when its process ends, however it ends. The file is removed with the lock. Where
    files cannot be locked (Windows, some network file systems) nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            os.close(descriptor)
            yield holder or "another process"
            return
        except OSError:
            os.close(descriptor)
            yield None
            return
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # its holder removed it meanwhile
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{socket.gethostname()}, process {os.getpid()}\n".encode())
        yield None
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
