"""Tasks over Ray: the same results as without, errors in their words, a lost process made good."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from momkd.errors import ClusterError, RunError, TrainingError
from momkd.experiment import load_experiment
from momkd.parallel import Place, run_tasks
from momkd.slides.importer import import_features
from momkd.study.compare import compare
from momkd.study.crossval import crossval
from momkd.study.predict import predict

ray = pytest.importorskip("ray", reason="needs the extra cluster: pip install 'momkd[cluster]'")
ON_RAY = Place("ray", workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all tests: ``run_tasks`` uses the one that is there."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, before)  # or the tests that follow in this process would have Ray's
    yield
    ray.shutdown()


def make_context() -> int:
    return os.getpid()


def write_pid(context: int, task: Path, tell: Callable[[Any], None]) -> None:
    assert context == os.getpid()
    logging.getLogger("momkd.training").info("task %s learns", task.name)
    task.write_text(str(context))
    tell(task.name)


def fail(_: int, task: int, tell: Callable[[Any], None]) -> None:
    if task == 2:
        raise TrainingError("slide-7: too odd")


def crash(_: int, task: int, tell: Callable[[Any], None]) -> None:
    raise ZeroDivisionError("a bug")


def die_once(_: int, task: Path, tell: Callable[[Any], None]) -> None:
    if not task.exists():
        task.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    tell(task.name)


def die(_: int, task: Path, tell: Callable[[Any], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(tasks: list[Any], work: Callable[..., None], watch: Callable[[Any], None] = lambda _: None) -> None:
    run_tasks(tasks, make_context, work, place=ON_RAY, workers=1, watch=watch)


def test_every_task_once_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    tasks = [tmp_path / str(i) for i in range(5)]
    with caplog.at_level(logging.INFO, logger="momkd"):
        run(tasks, write_pid, seen.append)
    assert sorted(seen) == ["0", "1", "2", "3", "4"]
    assert str(os.getpid()) not in {path.read_text() for path in tasks}
    assert sorted(caplog.messages) == [f"task {i} learns" for i in range(5)]


def test_an_error_of_ours_keeps_its_words() -> None:
    with pytest.raises(RunError, match="^slide-7: too odd$"):
        run([1, 2, 3], fail)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError(.|\n)*in crash"):
        run([1], crash)


def test_a_killed_process_is_made_good(tmp_path: Path) -> None:
    seen: list[str] = []
    run([tmp_path / "a", tmp_path / "b"], die_once, seen.append)
    assert sorted(seen) == ["a", "b"]


def test_what_always_dies_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a task was lost 4 times"):
        run([tmp_path / "a"], die)


def test_another_place_is_refused() -> None:
    with pytest.raises(ClusterError, match="expected local, ray, auto or ray://"):
        Place("kubernetes")
    with pytest.raises(ClusterError, match="gpus-per-task"):
        Place("ray", gpus=-1)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file that no clock is in."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    clocks = ("log.txt", "fold.json", "metrics.json", "table.csv", "table.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in clocks}


def test_a_cross_validation_has_the_same_bytes(make_cohort: Callable[..., Path], tmp_path: Path) -> None:
    experiment = load_experiment(make_cohort(tmp_path / "cohort"))
    crossval(experiment, tmp_path / "here", workers=1)
    crossval(experiment, tmp_path / "there", place=ON_RAY)
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    assert len(bytes_of(tmp_path / "here")) > 20


def test_a_comparison_has_the_same_bytes(make_cohort: Callable[..., Path], tmp_path: Path) -> None:
    experiment = load_experiment(make_cohort(tmp_path / "cohort"), ["cv.folds=2", "train.members=1"])
    for name, place in (("here", None), ("there", ON_RAY)):
        compare(experiment, ["abmil", "linear"], tmp_path / name, workers=1, place=place)
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")


def test_import_and_predict_are_the_same(
    make_student: Callable[..., Path], make_features: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(5):
        make_features(tmp_path / "raw", f"S{number}", seed=number)
    (tmp_path / "raw" / "S9.h5").write_bytes(b"nothing")
    reports = [
        import_features(tmp_path / "raw", tmp_path / name, dtype="float32", place=place)
        for name, place in (("here", None), ("there", ON_RAY))
    ]
    assert reports[0].written == reports[1].written == tuple(f"S{number}" for number in range(5))
    assert reports[0].problems == reports[1].problems
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    student = make_student(tmp_path / "student")
    here, _ = predict(student, [tmp_path / "here"])
    there, _ = predict(student, [tmp_path / "here"], place=ON_RAY)
    assert here.equals(there)
