"""A run folder: what a study leaves, and how it is found again.

RUN/experiment.yaml  patients.csv  splits.csv  predictions.csv  slides.csv  metrics.json  environment.json  log.txt
    fold-<repeat>-<fold>/
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from momkd.cohort.dataset import CohortData
from momkd.errors import RunError, summarise
from momkd.experiment import Experiment, TaskSettings, load_experiment
from momkd.files import read_json, remove_all_leftovers, remove_leftovers, sha256_file, write_json, write_text
from momkd.locks import claim

_LOCK = ".lock"
# The files that who holds the run writes; reports and pictures are written by others too.
_OWN = ("experiment", "environment", "patients", "splits", "predictions", "slides", "metrics", "table", "sweep")
_PACKAGES = ("momkd", "torch", "numpy", "pandas", "scikit-learn", "xgboost", "lightning-fabric", "h5py", "safetensors")


@dataclass(frozen=True, order=True)
class FoldId:
    """One fold of one repeat, both counted from 0."""

    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"fold-{self.repeat}-{self.fold}"


def folds_of(splits: pd.DataFrame) -> list[FoldId]:
    """The folds of a table of splits, in order."""
    pairs = splits[["repeat", "fold"]].drop_duplicates().itertuples(index=False)
    return sorted(FoldId(int(repeat), int(fold)) for repeat, fold in pairs)


class RunFolder:
    """Names and reads the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def settings_file(self) -> Path:
        """experiment.yaml."""
        return self.path / "experiment.yaml"

    @property
    def environment_file(self) -> Path:
        """environment.json."""
        return self.path / "environment.json"

    @property
    def splits_file(self) -> Path:
        """splits.csv."""
        return self.path / "splits.csv"

    @property
    def patients_file(self) -> Path:
        """patients.csv."""
        return self.path / "patients.csv"

    def fold(self, fold: FoldId) -> Path:
        """The folder of a fold."""
        return self.path / fold.name

    def is_done(self, fold: FoldId) -> bool:
        """Whether a fold is complete: its fold.json is written last."""
        return (self.fold(fold) / "fold.json").is_file()

    def prepare(self, experiment: Experiment, cohort: CohortData, *, beside: Sequence[str] = ()) -> None:
        """Make the run, or agree to go on with it; ``beside``: names of files that may be there before.

        Raises RunError when the folder holds something else, was made with other settings, or its data changed since.
        """
        settings_file, environment_file = self.settings_file, self.environment_file
        data = _fingerprints(experiment, cohort)
        if settings_file.is_file() and environment_file.is_file():
            self._check_same(load_experiment(settings_file), experiment)
            self._check_data(read_json(environment_file).get("data", {}), data)
            return
        strange = self.path.is_dir() and any(path.name not in (_LOCK, *beside) for path in self.path.iterdir())
        if strange and not settings_file.is_file():
            raise RunError(f"{self.path}: exists, is not empty and is not a run; give another --out")
        write_text(settings_file, experiment.to_yaml())
        write_json(environment_file, {**environment(), "data": data})

    def _check_same(self, before: Experiment, now: Experiment) -> None:
        changed = sorted(_differences(before.model_dump(mode="json"), now.model_dump(mode="json")))
        if changed:
            lines = "\n".join(f"  - {line}" for line in changed)
            raise RunError(
                f"{self.path}: was made with other settings; give another --out, or go back to the run's own:\n{lines}"
            )

    def check_data(self, experiment: Experiment, cohort: CohortData) -> None:
        """Raise RunError where tables or feature files are not those that the run was made from."""
        self._check_data(read_json(self.environment_file).get("data", {}), _fingerprints(experiment, cohort))

    def _check_data(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
        if changed:
            raise RunError(f"{self.path}: {', '.join(changed)} changed since this run began; give another --out")

    def experiment(self) -> Experiment:
        """The resolved experiment of the run; raises RunError if this is no run."""
        if not self.settings_file.is_file():
            raise RunError(
                f"{self.path}: not a run folder (no experiment.yaml); `momkd crossval` or `momkd fit` makes one"
            )
        return load_experiment(self.settings_file)

    def done_folds(self) -> list[FoldId]:
        """All complete folds, in order; raises RunError if some of the run's folds are missing."""
        if not self.splits_file.is_file():
            raise RunError(f"{self.path}: not a run folder (no splits.csv); `momkd crossval` or `momkd fit` makes one")
        folds = folds_of(pd.read_csv(self.splits_file, usecols=["repeat", "fold"]))
        missing = [fold.name for fold in folds if not self.is_done(fold)]
        if missing:
            raise RunError(
                f"{self.path}: unfinished, {len(missing)} of {len(folds)} folds are missing ({summarise(missing)}); "
                "run the same `momkd crossval` or `momkd fit` command again"
            )
        return folds

    def predictions(self, task: TaskSettings) -> pd.DataFrame:
        """predictions.csv; what was observed stays text where it is a class."""
        text = {"patient_id": str, "label": str} if task.categorical else {"patient_id": str}
        return pd.read_csv(self.path / "predictions.csv", dtype=text, keep_default_na=False)

    def histories(self) -> list[pd.DataFrame]:
        """history.csv of every fold that has one."""
        return [pd.read_csv(path) for path in sorted(self.path.glob("fold-*/history.csv"))]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work on the run alone; raises RunError where another process does, naming it.

        The lock is the system's and goes with its process, however that ends: a run that was killed can be taken over
        at once.
        """
        with claim(self.path / _LOCK) as holder:
            if holder is not None:
                raise RunError(f"{self.path}: {holder} works on it → wait for it, stop it, or give another --out")
            self._clear()
            yield

    def _clear(self) -> None:
        """Remove what a killed process left unfinished."""
        for stem in _OWN:
            remove_leftovers(self.path, stem)
        for folder in self.path.glob("fold-*"):
            remove_all_leftovers(folder)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append momkd's log messages to log.txt."""
        self.path.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("momkd")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """Write a table atomically; numbers keep every digit, so reading it back gives the same bits."""
    buffer = StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    write_text(target, buffer.getvalue())


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "packages": {name: installed(name) for name in _PACKAGES},
    }


def _fingerprints(experiment: Experiment, cohort: CohortData) -> dict[str, str]:
    files = {"cohort table": experiment.cohort.table}
    tables = experiment.omics or {}
    for name, settings in tables.items():
        files["omics table" if len(tables) == 1 else f"omics table {name}"] = settings.table
    tables_found = {name: sha256_file(path) for name, path in files.items() if path.is_file()}
    return {**tables_found, "feature files": cohort.fingerprint()}


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}" if place else key)
    elif before != now:
        yield f"{place}: {before!r} then, {now!r} now"
