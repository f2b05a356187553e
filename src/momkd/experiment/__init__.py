"""The experiment file: one YAML document that says everything a run depends on."""

from momkd.experiment.data import (
    CohortSettings,
    CvSettings,
    FeatureSettings,
    GraphSettings,
    TaskSettings,
)
from momkd.experiment.load import Experiment, build_experiment, load_experiment
from momkd.experiment.memory_rules import memory_notes, teaches
from momkd.experiment.model import (
    ClassifierSettings,
    DecouplingSettings,
    EncoderSettings,
    LossSettings,
    MemorySettings,
    ModelSettings,
    ProgrammeSettings,
    RnaSettings,
    TeacherSettings,
    WideSettings,
)
from momkd.experiment.omics import OmicsSettings, SelectSettings
from momkd.experiment.presets import PRESETS
from momkd.experiment.search import SearchSpace, load_search
from momkd.experiment.sweep import Point, SweepPlan, load_sweep
from momkd.experiment.training import TrainSettings

__all__ = [
    "PRESETS",
    "ClassifierSettings",
    "CohortSettings",
    "CvSettings",
    "DecouplingSettings",
    "EncoderSettings",
    "Experiment",
    "FeatureSettings",
    "GraphSettings",
    "LossSettings",
    "MemorySettings",
    "ModelSettings",
    "OmicsSettings",
    "Point",
    "ProgrammeSettings",
    "RnaSettings",
    "SearchSpace",
    "SelectSettings",
    "SweepPlan",
    "TaskSettings",
    "TeacherSettings",
    "TrainSettings",
    "WideSettings",
    "build_experiment",
    "load_experiment",
    "load_search",
    "load_sweep",
    "memory_notes",
    "teaches",
]
