"""The experiment file: one YAML document that says everything a run depends on."""

from momkd.experiment.data import (
    CohortSettings,
    CvSettings,
    FeatureSettings,
    GraphSettings,
    OmicsSettings,
    SelectSettings,
    TaskSettings,
)
from momkd.experiment.load import Experiment, build_experiment, load_experiment
from momkd.experiment.model import (
    ClassifierSettings,
    EncoderSettings,
    LossSettings,
    MemorySettings,
    ModelSettings,
    RnaSettings,
)
from momkd.experiment.presets import PRESETS
from momkd.experiment.training import TrainSettings

__all__ = [
    "PRESETS",
    "ClassifierSettings",
    "CohortSettings",
    "CvSettings",
    "EncoderSettings",
    "Experiment",
    "FeatureSettings",
    "GraphSettings",
    "LossSettings",
    "MemorySettings",
    "ModelSettings",
    "OmicsSettings",
    "RnaSettings",
    "SelectSettings",
    "TaskSettings",
    "TrainSettings",
    "build_experiment",
    "load_experiment",
]
