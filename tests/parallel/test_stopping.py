"""SIGTERM: what runs saves and ends within ten seconds, and the next call goes on to the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.experiment import load_experiment
from momkd.parallel.stopping import EXIT_CODE, stoppable
from momkd.study.crossval import crossval

CohortMaker = Callable[..., Path]
LONG = ["train.epochs=4000", "train.patience=4000", "train.members=1", "cv.folds=2"]


def start(file: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    sets = [word for one in LONG for word in ("--set", one)]
    command = ["-m", "momkd", "crossval", str(file), "--out", str(out), "--workers", str(workers), *sets]
    return subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def epochs_logged(out: Path) -> int:
    log = out / "log.txt"
    return len(re.findall(r"epoch \d+:", log.read_text())) if log.is_file() else 0


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_leaves_a_resume_point(make_cohort: CohortMaker, tmp_path: Path, workers: int) -> None:
    file, out = make_cohort(tmp_path / "cohort", patients=16), tmp_path / "run"
    process = start(file, out, workers)
    until = time.monotonic() + 90
    while epochs_logged(out) < 20 and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    # Ten seconds are promised, which a clock ends (below); on a busy machine the end of a process alone takes long.
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE == 143
    assert "SIGTERM: stopped; run the same command again to go on" in " ".join(said.split())
    # The usual resume point is written every 20 seconds, so this one is of the signal.
    points = list(out.glob("fold-*/resume/*.safetensors"))
    assert len(points) == workers
    assert not list(out.rglob(".*.tmp*"))


def test_what_was_stopped_goes_on_to_the_same_bytes(make_cohort: CohortMaker, tmp_path: Path) -> None:
    file = make_cohort(tmp_path / "cohort", patients=16)
    overrides = ["train.epochs=300", "train.patience=300", "train.members=1", "cv.folds=2"]
    experiment = load_experiment(file, overrides)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from momkd.experiment import load_experiment\n"
        "from momkd.study.crossval import crossval\n"
        "def watch(event):\n"
        "    if event.kind == 'epoch' and event.fold == 1 and event.epoch == 7: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"crossval(load_experiment(Path({str(file)!r}), {overrides}), Path(sys.argv[1]), workers=1, watch=watch)\n"
    )
    stopped = subprocess.run([sys.executable, "-c", script, str(tmp_path / "stopped")], capture_output=True, text=True)
    assert "StopRequested" in stopped.stderr
    assert (tmp_path / "stopped" / "fold-0-1" / "resume").is_dir()
    crossval(experiment, tmp_path / "stopped", workers=1)
    crossval(experiment, tmp_path / "alone", workers=1)
    for name in ("predictions.csv", "fold-0-1/student/student.safetensors", "fold-0-1/history.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_what_comes_to_no_end_of_a_step_ends_anyway() -> None:
    script = (
        "import os, signal, time\nfrom momkd.parallel.stopping import stoppable\n"
        "with stoppable(patience=0.2) as stopping:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    assert stopping()\n    time.sleep(60)\n"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == EXIT_CODE
    assert time.monotonic() - started < 30


def test_another_handler_and_another_thread_are_left_alone() -> None:
    with stoppable():
        ours = signal.getsignal(signal.SIGTERM)
        with stoppable() as inner:
            assert signal.getsignal(signal.SIGTERM) is ours
            assert not inner()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    found: list[object] = []

    def elsewhere() -> None:
        with stoppable() as stopping:
            found.append(stopping())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]
    assert os.getpid() > 0
