"""All files of a plan: what is there, whether the disk holds the rest, several at once, every failure at the end."""

from __future__ import annotations

import errno
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from momkd.errors import GdcError, Problem, summarise
from momkd.files import md5_file
from momkd.gdc.client import Client, Stopped
from momkd.gdc.fetch import fetch
from momkd.gdc.plan import read_plan
from momkd.gdc.records import PART, Kind, RemoteFile
from momkd.locks import claim

# A server that is down fails every file after minutes of retries; so many in a row end the download.
_FAILURES_IN_A_ROW = 10
# A disk that is filled to the last byte is of no use to anybody.
_SPARE_BYTES = 1 << 30


@dataclass(frozen=True)
class Event:
    """What happens to a file: "present", "started", "bytes" (``count`` of them), "done" or "failed" (``note``: why)."""

    kind: Literal["present", "started", "bytes", "done", "failed"]
    file: RemoteFile
    count: int = 0
    note: str = ""


Watch = Callable[[Event], None]
"""Called from several threads."""


@dataclass(frozen=True)
class DownloadReport:
    """What became of every file of the plan; ``untried``: left when the download was given up."""

    folder: Path
    done: tuple[RemoteFile, ...]
    present: tuple[RemoteFile, ...]
    untried: tuple[RemoteFile, ...]
    problems: tuple[Problem, ...]

    @property
    def complete(self) -> bool:
        """Whether every file is there."""
        return not self.untried and not any(problem.severity == "error" for problem in self.problems)


def download(
    folder: Path,
    client: Client,
    *,
    kinds: Sequence[Kind] = (),
    workers: int = 4,
    verify: bool = False,
    watch: Watch | None = None,
) -> DownloadReport:
    """Download the files of the plan in ``folder``, of some ``kinds`` or all; resumes.

    A file under its final name and of the planned size is complete, because it got that name after its MD5 was right;
    ``verify`` computes the MD5 again. Files where gdc-client puts them count as well. A file that fails is reported and
    the others go on. Raises GdcError without a plan, where another process downloads into the folder, for controlled
    files without a token, and where the disk has no room for what is missing.
    """
    plan = read_plan(folder)
    tell = watch or (lambda _: None)
    with claim(folder / ".download.lock") as holder:
        if holder is not None:
            raise GdcError(f"{folder}: {holder} is downloading here → wait for it, or stop it")
        missing, present, notes = _missing(folder, plan.used(*kinds), verify=verify, tell=tell)
        _check_access(missing, client)
        _check_room(folder, missing)
        done, untried, failures = _fetch_all(folder, client, missing, workers, tell)
    return DownloadReport(folder, tuple(done), tuple(present), tuple(untried), (*notes, *failures))


def _missing(
    folder: Path, files: Sequence[RemoteFile], *, verify: bool, tell: Watch
) -> tuple[list[RemoteFile], list[RemoteFile], list[Problem]]:
    missing: list[RemoteFile] = []
    present: list[RemoteFile] = []
    notes: list[Problem] = []
    for file in files:
        place = file.find(folder)
        wrong = place is not None and verify and md5_file(place) != file.md5
        if place is not None and wrong:
            place.unlink()
            notes.append(Problem(str(place), "its MD5 was wrong; it is downloaded again", severity="note"))
        if place is None or wrong:
            missing.append(file)
        else:
            present.append(file)
            tell(Event("present", file, file.size))
    return missing, present, notes


def _check_access(files: Sequence[RemoteFile], client: Client) -> None:
    closed = [file.name for file in files if file.access == "controlled"]
    if closed and client.token is None:
        raise GdcError(
            f"{len(closed)} files are controlled: {summarise(closed)}; expected a token of somebody who may see them → "
            "--token FILE, saved from the GDC portal"
        )


def _check_room(folder: Path, files: Sequence[RemoteFile]) -> None:
    """Raise GdcError where a disk cannot hold what is still to come; kinds may be links to different disks."""
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for file in files:
        target = folder / file.path
        place = next(parent for parent in target.parents if parent.exists())
        part = target.with_name(target.name + PART)
        device = place.stat().st_dev
        places.setdefault(device, place)
        needed[device] += max(0, file.size - (part.stat().st_size if part.exists() else 0))
    for device, place in places.items():
        free = shutil.disk_usage(place).free
        if needed[device] and free < needed[device] + _SPARE_BYTES:
            raise GdcError(
                f"{place}: {free / 1e9:.1f} GB free; expected {(needed[device] + _SPARE_BYTES) / 1e9:.1f} GB for the "
                f"files to come ({_SPARE_BYTES / 1e9:.1f} GB of them to spare) → make room, link {place / 'slides'} to "
                "another disk, or plan fewer patients: --limit, --patients"
            )


def _fetch_all(
    folder: Path, client: Client, files: Sequence[RemoteFile], workers: int, tell: Watch
) -> tuple[list[RemoteFile], list[RemoteFile], list[Problem]]:
    """Return the files that came, those not tried to the end, and a problem for each that failed."""
    in_a_row, counting = 0, threading.Lock()

    def judge(future: Future[None]) -> None:
        # Called by the thread that fetched, before it takes its next file: none is tried after the last failure.
        nonlocal in_a_row
        error = None if future.cancelled() else future.exception()
        with counting:
            in_a_row = 0 if error is None else in_a_row + 1
            if in_a_row == _FAILURES_IN_A_ROW or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
                client.stop.set()

    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="gdc")
    running: dict[Future[None], RemoteFile] = {}
    try:
        for file in files:
            future = pool.submit(_one, folder, client, file, tell)
            future.add_done_callback(judge)
            running[future] = file
        wait(running)
    except BaseException:
        # Ctrl-C: what is being read stops at the next bytes, and stays as it is.
        client.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    done, untried, problems = [], [], []
    for future, file in running.items():
        error = Stopped() if future.cancelled() else future.exception()
        if error is None:
            done.append(file)
        elif isinstance(error, Stopped):
            untried.append(file)
        elif isinstance(error, GdcError | OSError):
            problems.append(Problem(str(folder / file.path), str(error)))
        else:
            raise error
    return done, untried, problems


def _one(folder: Path, client: Client, file: RemoteFile, tell: Watch) -> None:
    if client.stop.is_set():
        raise Stopped
    tell(Event("started", file))
    try:
        fetch(client, file, folder / file.path, advance=lambda count: tell(Event("bytes", file, count)))
    except (GdcError, OSError) as error:
        tell(Event("failed", file, note=str(error)))
        raise
    tell(Event("done", file))
