"""The deployable predictor: a folder of safetensors and JSON that needs a slide's features and nothing else."""

from momkd.student.folder import load_student, save_student
from momkd.student.predictor import FeatureGeometry, SlidePrediction, StudentCard, StudentPredictor

__all__ = ["FeatureGeometry", "SlidePrediction", "StudentCard", "StudentPredictor", "load_student", "save_student"]
