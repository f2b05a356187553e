"""The columns of predictions.csv and slides.csv, by task."""

from __future__ import annotations

from momkd.experiment import TaskSettings


def observed_columns(task: TaskSettings) -> list[str]:
    """Return the columns of what was observed.

    Classes: label (the class's name). Continuous: label (the value). Survival: time, event (0/1).
    """
    return ["time", "event"] if task.type == "survival" else ["label"]


def prediction_columns(task: TaskSettings) -> list[str]:
    """Return the columns of what is predicted.

    Classes: prob_<class> …. Continuous: predicted, in the unit of the label. Survival: risk, higher = earlier event.
    """
    if task.type == "continuous":
        return ["predicted"]
    return ["risk"] if task.type == "survival" else [f"prob_{name}" for name in task.classes]
