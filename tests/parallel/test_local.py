"""Folds over processes: everything is done once, errors come through, a dead worker is noticed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.errors import RunError, TrainingError
from momkd.parallel import Place, run_tasks
from momkd.study.events import Event, Watcher


def make_context() -> int:
    return os.getpid()


def write_pid(context: int, task: Path, watch: Watcher) -> None:
    assert context == os.getpid()
    task.write_text(str(context))
    watch(Event("done", 0, int(task.name)))


def note(_: int, task: int, watch: Watcher) -> None:
    logging.getLogger("momkd.training").info("task %d learns", task)


def fail(_: int, task: int, watch: Watcher) -> None:
    if task == 2:
        raise TrainingError("slide-7: too odd")


def crash(_: int, task: int, watch: Watcher) -> None:
    raise ZeroDivisionError("a bug")


def die(_: int, task: int, watch: Watcher) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_once(tmp_path: Path, workers: int) -> None:
    seen: list[Event] = []
    tasks = [tmp_path / str(i) for i in range(5)]
    run_tasks(tasks, make_context, write_pid, place=Place(), workers=workers, watch=seen.append)
    assert sorted(event.fold for event in seen) == [0, 1, 2, 3, 4]
    own = {path.read_text() == str(os.getpid()) for path in tasks}
    assert own == {workers == 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_workers_log_reaches_the_log_of_the_run(caplog: pytest.LogCaptureFixture, workers: int) -> None:
    with caplog.at_level(logging.INFO, logger="momkd"):
        run_tasks([1, 2, 3], make_context, note, place=Place(), workers=workers, watch=lambda _: None)
    assert sorted(caplog.messages) == ["task 1 learns", "task 2 learns", "task 3 learns"]


def test_an_error_of_ours_keeps_its_words() -> None:
    with pytest.raises(RunError, match="^slide-7: too odd$"):
        run_tasks([1, 2, 3], make_context, fail, place=Place(), workers=2, watch=lambda _: None)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError(.|\n)*in crash"):
        run_tasks([1, 2], make_context, crash, place=Place(), workers=2, watch=lambda _: None)


def test_a_killed_worker_is_noticed() -> None:
    with pytest.raises(RunError, match=r"exit code -9 \(killed; out of memory\?\); run the same command again"):
        run_tasks([1, 2], make_context, die, place=Place(), workers=2, watch=lambda _: None)


ORPHANS = """
import os, sys, time
from pathlib import Path
from momkd.study.events import Event
from momkd.parallel import Place, run_tasks

def context():
    return None

def work(_, task, watch):
    for _ in range(2400):
        watch(Event("epoch", 0, 0))
        Path(task, str(os.getpid())).touch()
        time.sleep(0.05)

if __name__ == "__main__":
    run_tasks([sys.argv[1]] * 2, context, work, place=Place(), workers=2, watch=lambda _: None)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script, alive = tmp_path / "orphans.py", tmp_path / "alive"
    script.write_text(ORPHANS)
    alive.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(alive)], start_new_session=True)
    try:
        _until(lambda: len(list(alive.iterdir())) == 2)
        parent.kill()
        parent.wait()
        for path in alive.iterdir():
            _until(lambda path=path: not _is_running(int(path.name)))  # type: ignore[misc]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def _is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        # A zombie that nobody has waited for is not running.
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
