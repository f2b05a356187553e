"""How the students of a run were taught and what they predict from."""

from __future__ import annotations

from dataclasses import dataclass

from momkd.cohort.pairing import word_of
from momkd.experiment import Experiment
from momkd.files import read_json
from momkd.models.registry import METHODS
from momkd.study.run_folder import RunFolder


@dataclass(frozen=True)
class Taught:
    """A method, and the omics tables that taught it; None where nobody knows."""

    method: str
    omics: tuple[str, ...] | None

    def words(self) -> str:
        """What taught, and what is needed to predict."""
        names = " and ".join(word_of(name) for name in self.omics or ())
        use = METHODS[self.method].omics
        if use == "test":
            return f"given {names or 'omics'} in training and test, an upper bound"
        slides = "predicted from histology alone"
        if self.omics is None:
            return slides
        return f"trained with {names}; {slides}" if names and use == "train" else f"trained without omics; {slides}"


def taught(run: RunFolder, experiment: Experiment) -> Taught:
    """What a cross-validation, a final fit or an external evaluation, of that experiment, says of its students.

    Those of an external evaluation were taught by another cohort than the one that judges them.
    """
    about = read_json(run.environment_file) if run.environment_file.is_file() else {}
    if "run" in about:
        omics = about.get("omics")
        return Taught(about.get("method", experiment.model.name), None if omics is None else tuple(omics))
    return Taught(experiment.model.name, tuple(experiment.omics or {}))
