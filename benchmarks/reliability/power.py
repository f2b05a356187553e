"""A cut of the power, simulated: what was not synced to the disk is lost.

A process that runs with ``witness(folder)`` in its environment writes down every fsync and every rename that it does.
``cut`` then does to the files of a folder what a power cut may: a file that was written to after its last fsync (or
never had one) is cut short, filled with zeros, or emptied; a file whose rename was not followed by an fsync of its
folder is gone.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

_JOURNAL = "MOMKD_SYNCED"
# Imported by every Python process that finds it on its path, workers included.
_SITE = """
import os

_journal = os.open(os.environ["MOMKD_SYNCED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_fsync, _replace, _rename = os.fsync, os.replace, os.rename


def _note(*words):
    os.write(_journal, ("\\t".join(map(str, words)) + "\\n").encode())


def fsync(file):
    _fsync(file)
    state = os.fstat(file if isinstance(file, int) else file.fileno())
    _note("sync", state.st_ino, state.st_size, state.st_mtime_ns)


def replace(source, target, **more):
    _replace(source, target, **more)
    _note("rename", os.stat(target).st_ino, os.stat(os.path.dirname(os.path.abspath(target))).st_ino)


os.fsync, os.replace, os.rename = fsync, replace, replace
"""


def witness(folder: Path) -> dict[str, str]:
    """The environment for processes whose writes are to be known; ``folder``: where the knowledge lies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    path = str(folder) if before is None else f"{folder}{os.pathsep}{before}"
    return {**os.environ, "PYTHONPATH": path, _JOURNAL: str(folder / "journal")}


def cut(out: Path, folder: Path, chance: random.Random) -> tuple[int, int]:
    """Lose in ``out`` what was not synced; returns how many files were damaged, and how many are gone."""
    synced, renamed = _read(folder / "journal")
    damaged = gone = 0
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        state = path.stat()
        if state.st_ino in renamed:
            path.unlink()
            gone += 1
        elif synced.get(state.st_ino) != (state.st_size, state.st_mtime_ns) and state.st_size:
            _damage(path, state.st_size, chance)
            damaged += 1
    return damaged, gone


def _read(journal: Path) -> tuple[dict[int, tuple[int, int]], set[int]]:
    """Size and time of each file at its last fsync; and the files whose rename no fsync of their folder followed."""
    synced: dict[int, tuple[int, int]] = {}
    renamed: dict[int, int] = {}
    for line in journal.read_text().splitlines() if journal.is_file() else ():
        kind, *numbers = line.split("\t")
        if kind == "rename":
            renamed[int(numbers[0])] = int(numbers[1])
        else:
            file, size, time = map(int, numbers)
            synced[file] = (size, time)
            renamed = {moved: parent for moved, parent in renamed.items() if parent != file}
    return synced, set(renamed)


def _damage(path: Path, size: int, chance: random.Random) -> None:
    keep = chance.randrange(size)
    way = chance.choice(("short", "zeros", "empty"))
    with path.open("rb+") as file:
        file.truncate(0 if way == "empty" else keep)
        if way == "zeros":
            file.truncate(size)
