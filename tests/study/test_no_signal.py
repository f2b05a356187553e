"""Where there is nothing to learn, nothing is found: the test that catches leaks nobody thought of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from momkd.experiment import load_experiment
from momkd.simulator import SimulationSettings, simulate
from momkd.study.crossval import crossval

OVERRIDES = [
    "model.encoder.dim=16",
    "model.rna.hidden=16",
    "model.memory.codes=4",
    "train.epochs=6",
    "train.lr=0.005",
    "train.threads=1",
    "omics.select.n=50",
    "graph.k=4",
    "cv.folds=3",
]


def test_shuffled_labels_give_chance(tmp_path: Path) -> None:
    """Gene selection by label, balanced sampling, early stopping and threshold are all in the loop."""
    simulate(SimulationSettings(patients=150, external_patients=4, patches=20, genes=200, seed=3), tmp_path / "cohort")
    table = tmp_path / "cohort" / "cohort.csv"
    cohort = pd.read_csv(table, dtype=str)
    label = load_experiment(tmp_path / "cohort" / "experiment.yaml").task.label
    by_patient = cohort.drop_duplicates("patient_id").set_index("patient_id")[label]
    means = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shuffled = pd.Series(rng.permutation(by_patient.to_numpy()), index=by_patient.index)
        cohort.assign(**{label: cohort["patient_id"].map(shuffled)}).to_csv(table, index=False)
        experiment = load_experiment(tmp_path / "cohort" / "experiment.yaml", OVERRIDES)
        metrics = crossval(experiment, tmp_path / f"run-{seed}", workers=1).metrics
        means.append(metrics["test"]["auc"]["mean"])
    assert abs(float(np.mean(means)) - 0.5) <= 0.06, means
