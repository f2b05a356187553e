"""A search by its results: the same folds, poor trials stopped, nothing lost, everything from the files."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from momkd.cli.app import run as momkd
from momkd.errors import MomkdError, RunError
from momkd.experiment import SearchSpace, load_experiment, load_search
from momkd.parallel import Place
from momkd.study.crossval import crossval
from momkd.study.events import Event
from momkd.study.proposals import propose
from momkd.study.search import search
from momkd.study.trials import Trial, goes_on, read_trials, rungs

GRID = ["train.lr={from: 1e-4, to: 2e-2, log: true}", "model.memory.codes={from: 2, to: 4}", "train.batch_size=4,8"]
QUICK = ["train.epochs=2", "train.members=1", "cv.folds=4"]


@pytest.fixture(scope="module")
def space(make_cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load_search(make_cohort(tmp_path_factory.mktemp("cohort"), signal=0.3), GRID, QUICK)


@pytest.fixture(scope="module")
def found(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of seven trials, one process."""
    out = tmp_path_factory.mktemp("search") / "search"
    search(space, out, trials=7, workers=1)
    return out


def test_rungs_are_a_quarter_and_its_doubles() -> None:
    assert [rungs(n) for n in (2, 3, 4, 5, 10, 25)] == [[], [2], [2], [2, 4], [3, 6], [7, 14]]


def _trial(number: int, *scores: float | None) -> Trial:
    return Trial(number, {}, scores=scores)


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ((0.5, 0.5), [(0.9, 0.9), (0.9, 0.9)], True),  # too few have come so far
        ((0.5, 0.5), [(0.9, 0.9), (0.9, 0.9), (0.4, 0.4)], False),
        ((0.8, 0.6), [(0.9, 0.9), (0.1, 0.1), (0.4, 0.4)], True),
        ((0.5, 0.5), [(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)], True),  # equals
        ((0.5, 0.5), [(0.9,), (0.9,), (0.9,), (0.9, 0.9)], True),  # others are not there yet
        ((0.5, 0.5, 0.9), [(0.6, 0.6, 0.1), (0.6, 0.6), (0.1, 0.1)], False),  # by the first two folds
        ((None, None), [(0.9, 0.9), (0.9, 0.9), (0.9, 0.9)], True),  # undefined: nothing is known against it
        ((None, 0.8), [(0.9, None), (0.7, 0.7), (0.1, 0.1)], True),
    ],
)
def test_the_better_half_goes_on(own: Any, others: Any, expected: bool) -> None:
    trials = [_trial(number, *scores) for number, scores in enumerate(others, 1)]
    assert goes_on(_trial(0, *own), [*trials, _trial(0, *own)], 2) is expected


def test_complete_trials_are_ordinary_runs(space: SearchSpace, found: Path, tmp_path: Path) -> None:
    trial = next(one for one in read_trials(found) if one.state == "complete")
    overrides = [*QUICK, *(f"{key}={value}" for key, value in trial.settings.items())]
    experiment = load_experiment(space.folder / "experiment.yaml", overrides)
    same = crossval(experiment, tmp_path / "run", workers=1).run
    for name in ("predictions.csv", "splits.csv", "experiment.yaml"):
        assert (same / name).read_bytes() == (found / trial.name / name).read_bytes()
    assert trial.mean() == pytest.approx(crossval(experiment, same).metrics["val"]["auc"]["mean"], abs=1e-12)


def test_stopped_trials_did_the_first_folds_and_have_no_rank(found: Path) -> None:
    table = pd.read_csv(found / "sweep.csv")
    stopped = table[table["state"] == "stopped"]
    assert len(stopped)
    assert set(table["state"]) == {"complete", "stopped"}
    assert (stopped["val_n"] == 2).all()
    assert stopped["rank"].isna().all()
    assert table.loc[table["state"] == "complete", "rank"].notna().all()
    for name in stopped["run"]:
        assert sorted(path.name for path in (found / name).glob("fold-*")) == ["fold-0-0", "fold-0-1"]
        assert not (found / name / "metrics.json").exists()


def test_every_point_is_another_one_and_inside_the_space(found: Path) -> None:
    settings = [trial.settings for trial in read_trials(found)]
    assert all(one not in settings[:number] for number, one in enumerate(settings))
    for one in settings:
        assert 1e-4 <= one["train.lr"] <= 2e-2
        assert one["model.memory.codes"] in (2, 3, 4)
        assert one["train.batch_size"] in (4, 8)


def test_again_it_trains_nothing_and_leaves_the_same_table(space: SearchSpace, found: Path) -> None:
    before = (found / "sweep.csv").read_bytes()
    events: list[Event] = []
    search(space, found, trials=7, workers=1, watch=events.append)
    assert {event.kind for event in events} == {"skipped", "stopped"}
    assert len(events) == 7 * 4
    assert (found / "sweep.csv").read_bytes() == before


def test_a_search_that_was_cut_ends_as_one_that_was_not(space: SearchSpace, found: Path, tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    def cut(event: Event) -> None:
        # Not an Exception of the work: the watcher stands for Ctrl-C.
        if event.run == "trial-003" and event.kind == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(space, tmp_path / "search", trials=7, workers=1, watch=cut)
    search(space, tmp_path / "search", trials=5, workers=1)
    search(space, tmp_path / "search", trials=7, workers=1)
    assert (tmp_path / "search" / "sweep.csv").read_bytes() == (found / "sweep.csv").read_bytes()


def test_later_proposals_follow_what_was_found(space: SearchSpace) -> None:
    """After many trials in which small learning rates won, most proposals are small."""
    known = []
    for number in range(30):
        rate = 1e-4 * 200 ** (number / 29)
        settings = {"train.lr": float(f"{rate:.3g}"), "model.memory.codes": 2 + number % 3, "train.batch_size": 4}
        score = 0.9 - number / 60
        known.append(Trial(number, settings, "complete", (score,) * 4))
    rates = [propose(space, known, number)["train.lr"] for number in range(30, 50)]
    assert sum(rate < 1e-3 for rate in rates) > 12
    assert propose(space, known, 30) == propose(space, known, 30)


def test_a_small_space_is_used_up_without_repetition(make_cohort: Any, tmp_path: Path) -> None:
    space = load_search(make_cohort(tmp_path, 12), ["model.memory.codes={from: 1, to: 6}"])
    known: list[Trial] = []
    for number in range(6):
        known.append(Trial(number, propose(space, known, number), "complete", (0.5, 0.5)))
    assert sorted(trial.settings["model.memory.codes"] for trial in known) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunError, match="too small"):
        propose(space, known, 6)
    with pytest.raises(RunError, match="leave it out"):
        search(space, tmp_path / "out", trials=6)


def test_another_space_in_the_same_folder_is_refused(space: SearchSpace, found: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="another space"):
        search(space, found, trials=7, halving=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="not a search"):
        search(space, tmp_path, trials=2)


def test_a_damaged_proposal_is_named(space: SearchSpace, found: Path, tmp_path: Path) -> None:
    shutil.copytree(found, tmp_path / "search")
    (tmp_path / "search" / "trial-002" / "proposal.json").write_text("{")
    with pytest.raises(RunError, match="trial-002"):
        search(space, tmp_path / "search", trials=7)


def test_a_damaged_search_file_is_named(space: SearchSpace, found: Path, tmp_path: Path) -> None:
    shutil.copytree(found, tmp_path / "search")
    (tmp_path / "search" / "search.json").write_text('{"space": ')
    with pytest.raises(MomkdError, match=r"search\.json: is damaged"):
        search(space, tmp_path / "search", trials=7, workers=1)


def test_a_trial_that_fails_costs_the_others_nothing(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from momkd.study import search as module

    done = module.run_one_fold

    def fails(context: Any, fold: Any, watch: Any) -> None:
        if context.run.path.name == "trial-001" and fold.fold == 1:
            raise MemoryError("too large")
        done(context, fold, watch)

    monkeypatch.setattr(module, "run_one_fold", fails)
    events: list[Event] = []
    result = search(space, tmp_path / "search", trials=3, workers=1, watch=events.append)
    assert list(result.results.failures) == ["trial-001"]
    assert list(result.table["state"]) == ["complete", "failed", "complete"]
    assert sum(event.kind in ("done", "failed", "stopped") for event in events) == 12
    with pytest.raises(RunError, match="too large"):
        result.results.raise_failures()
    monkeypatch.undo()
    again = search(space, tmp_path / "search", trials=3, workers=1)
    assert list(again.table["state"]) == ["complete"] * 3
    assert not again.results.failures


@pytest.mark.parametrize("place", [None, Place("ray")])
def test_several_processes_search_together(space: SearchSpace, tmp_path: Path, place: Place | None) -> None:
    if place is not None:
        pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    result = search(space, tmp_path / "search", trials=4, workers=2, place=place, halving=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(result.table["state"]) == ["complete"] * 4
    settings = [trial.settings for trial in read_trials(tmp_path / "search")]
    assert all(one not in settings[:number] for number, one in enumerate(settings))


def test_the_command_line(space: SearchSpace, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "search"
    shutil.copytree(found, out)
    words = ["sweep", str(space.folder / "experiment.yaml"), "--search", "7", "--out", str(out)]
    words += [part for word in GRID for part in ("--grid", word)] + [part for word in QUICK for part in ("--set", word)]
    assert momkd(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stopped" in said
    assert "★" in said
    assert "did all folds" in said
    assert "test" not in said.split("hidden")[0]
    assert (out / "sweep.png").stat().st_size > 10_000
    assert momkd([*words, "--show-test"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "An honest score takes patients outside of it" in said
    assert "test_auc_mean" in pd.read_csv(out / "sweep.csv")


def test_without_optuna_the_extra_is_named(space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("momkd.study.search.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"momkd\[search\]"):
        search(space, tmp_path / "search", trials=2)


def test_trials_are_values() -> None:
    assert replace(_trial(3, 0.5), note="x").name == "trial-003"
