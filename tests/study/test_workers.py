"""Folds over processes: everything is done once, errors come through, a dead worker is noticed."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from momkd.errors import RunError, TrainingError
from momkd.study.events import Event, Watcher
from momkd.study.workers import run_tasks


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
    run_tasks(tasks, make_context, write_pid, workers=workers, watch=seen.append)
    assert sorted(event.fold for event in seen) == [0, 1, 2, 3, 4]
    own = {path.read_text() == str(os.getpid()) for path in tasks}
    assert own == {workers == 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_workers_log_reaches_the_log_of_the_run(caplog: pytest.LogCaptureFixture, workers: int) -> None:
    with caplog.at_level(logging.INFO, logger="momkd"):
        run_tasks([1, 2, 3], make_context, note, workers=workers, watch=lambda _: None)
    assert sorted(caplog.messages) == ["task 1 learns", "task 2 learns", "task 3 learns"]


def test_an_error_of_ours_keeps_its_words() -> None:
    with pytest.raises(RunError, match="^slide-7: too odd$"):
        run_tasks([1, 2, 3], make_context, fail, workers=2, watch=lambda _: None)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError(.|\n)*in crash"):
        run_tasks([1, 2], make_context, crash, workers=2, watch=lambda _: None)


def test_a_killed_worker_is_noticed() -> None:
    with pytest.raises(RunError, match=r"exit code -9 \(killed; out of memory\?\); run the same command again"):
        run_tasks([1, 2], make_context, die, workers=2, watch=lambda _: None)
