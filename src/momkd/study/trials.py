"""The trials of a search as files, and which of them go on.

DIR/trial-000/proposal.json   what was proposed, the validation scores so far, and what became of it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from momkd.errors import RunError
from momkd.files import read_json, write_json

PROPOSAL = "proposal.json"
# Of the trials at a rung this share goes on, and nobody is stopped before so many have reached it.
_KEPT, _FEWEST = 0.5, 4

State = Literal["running", "complete", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """A proposed point: its settings as asked for, and its validation score in each fold that it did, in order."""

    number: int
    settings: dict[str, Any]
    state: State = "running"
    scores: tuple[float | None, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"trial-{self.number:03d}"

    def mean(self, folds: int | None = None) -> float:
        """The mean score of the first ``folds`` folds (all: None) in which it is defined; NaN in none."""
        known = [score for score in self.scores[:folds] if score is not None]
        return float(np.mean(known)) if known else math.nan


def read_trials(out: Path) -> list[Trial]:
    """The trials of a search in the order of their numbers. Raises RunError for a proposal that cannot be read."""
    found = []
    for path in sorted(out.glob(f"trial-*/{PROPOSAL}")):
        try:
            raw = read_json(path)
            found.append(Trial(raw["number"], raw["settings"], raw["state"], tuple(raw["scores"]), raw["note"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is damaged ({error!r}) → delete {path.parent}, and it is done anew") from error
    return sorted(found, key=lambda trial: trial.number)


def rungs(folds: int) -> list[int]:
    """After how many folds trials are compared: a quarter of them, at least two, and twice as many each time."""
    first = max(2, math.ceil(folds / 4))
    return [first * 2**k for k in range(folds) if first * 2**k < folds]


def goes_on(own: Trial, others: Sequence[Trial], rung: int) -> bool:
    """Whether a trial is in the better half of those that have reached a rung; of equals, all are."""
    mean = own.mean(rung)
    reached = [other.mean(rung) for other in others if other.number != own.number and len(other.scores) >= rung]
    reached = [mean, *(other for other in reached if not math.isnan(other))]
    if math.isnan(mean) or len(reached) < _FEWEST:
        return True
    better = sum(other > mean for other in reached)
    return better < math.ceil(_KEPT * len(reached))


def write_trial(out: Path, trial: Trial) -> None:
    """Write what is known of a trial, atomically."""
    raw = {"number": trial.number, "settings": trial.settings, "state": trial.state}
    write_json(out / trial.name / PROPOSAL, {**raw, "scores": list(trial.scores), "note": trial.note})
