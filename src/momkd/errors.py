"""The errors that momkd raises on purpose, and the form in which it reports many of them at once.

Every message says four things: which file, patient or slide; what was found; what was expected; what mends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class MomkdError(Exception):
    """Base of every error that momkd raises on purpose; the command line prints it without a traceback."""


class DamagedFileError(MomkdError, ValueError):
    """A file that momkd wrote is no longer what it was."""


class ExperimentError(MomkdError):
    """The experiment file, or an override of it, is wrong."""


class CohortError(MomkdError):
    """The cohort table, or what it points to, cannot be used."""


class FeatureFileError(MomkdError):
    """A feature file cannot be read as a bag of patches."""


class ExtractError(MomkdError):
    """A slide, or an encoder, cannot be used to make features."""


class GdcError(MomkdError):
    """The Genomic Data Commons, or what was downloaded from it, is not what was asked for."""


class OmicsError(MomkdError):
    """An omics table cannot be used."""


class SplitError(MomkdError):
    """Folds cannot be made, or a given split table breaks a rule."""


class TrainingError(MomkdError):
    """A fit cannot go on."""


class RunError(MomkdError):
    """A run folder is not what the command needs."""


class ClusterError(MomkdError):
    """Tasks cannot be done where they were asked to be."""


class StudentError(MomkdError):
    """A student folder cannot be loaded, or does not fit the features it was given."""


class ExplainError(MomkdError):
    """A slide cannot be explained: its pixels and features do not belong together, or nothing tells patches apart."""


class ServeError(MomkdError):
    """The service cannot be started as asked, or something sent to it cannot be used."""


class CheckpointError(MomkdError):
    """A published checkpoint cannot be imported."""


@dataclass(frozen=True)
class Problem:
    """One finding about a cohort, in a form that a table, a message and a test can all read.

    ``severity`` is "error" (nothing can run), or "note" (it runs, and the user should know).
    """

    subject: str
    found: str
    expected: str = ""
    mend: str = ""
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        text = f"{self.subject}: {self.found}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.mend:
            text += f" → {self.mend}"
        return text


def summarise(names: Sequence[str], shown: int = 5) -> str:
    """List a few names and count the rest: "a, b, c (+ 12 more)"."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} (+ {len(names) - shown} more)"


def raise_problems(problems: Sequence[Problem], error: type[MomkdError] = CohortError) -> None:
    """Raise ``error`` listing every problem of severity "error"; return quietly if there is none."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        head = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        raise error("\n".join([f"{head}:", *(f"  - {problem}" for problem in errors)]))
