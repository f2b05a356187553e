"""How much is left to find in a simulated cohort's slides, and what keeps a trained student from finding it.

    python benchmarks/simulated.py --patients 300 --repeats 1 --methods momkd abmil --out runs/simulated
    python benchmarks/headroom.py --out runs/simulated

It reads the runs of the first command and trains no network. Ceilings: the score that the simulator shows in slides,
and ridge regression on the mean features of the patches that are truly informative. The student: its test AUC with
some growths g of its focus (the temperature of the attention is divided by max(1, g·ln P)), the share of attention
on informative patches then, and ridge regression on the mean features under that attention. These are test AUCs: of a
cohort that is to judge a student they explain and choose nothing; what may choose is another cohort (--seed).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from momkd.models.graph import Graph
from momkd.models.student import Student
from momkd.simulator.truth import Truth, read_truth
from momkd.slides.bag import Bag
from momkd.slides.readers import read_bag
from momkd.student import load_student
from momkd.student.predictor import graph_of

PENALTIES = np.logspace(0, 5, 20)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Bags, graphs and truth of a simulated cohort; the patient of every slide, the label of every patient."""

    bags: Mapping[str, Bag]
    graphs: Mapping[str, Graph]
    truth: Truth
    patient: Mapping[str, str]
    label: Mapping[str, int]


def read(folder: Path) -> Cohort:
    """Read the slides that are there."""
    truth, table = read_truth(folder / "truth.npz"), pd.read_csv(folder / "cohort.csv", dtype=str)
    bags = {slide: read_bag(folder / "features" / f"{slide}.h5") for slide in truth.slide_id.tolist()}
    return Cohort(
        bags,
        {slide: graph_of(bag, 8) for slide, bag in bags.items()},
        truth,
        dict(zip(table["slide_id"], table["patient_id"], strict=True)),
        dict(zip(truth.patient_id.tolist(), truth.label.tolist(), strict=True)),
    )


def by_patient(cohort: Cohort, of_slide: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean over each patient's slides."""
    rows: dict[str, list[np.ndarray]] = {}
    for slide, value in of_slide.items():
        rows.setdefault(cohort.patient[slide], []).append(value)
    return {patient: np.mean(values, axis=0) for patient, values in rows.items()}


def ridge_auc(cohort: Cohort, of_slide: Mapping[str, np.ndarray], roles: Mapping[str, str]) -> float:
    """Test AUC of ridge regression on labels, fitted on all patients of a fold that are not in its test part."""
    means = by_patient(cohort, of_slide)
    fit, test = ([p for p in means if p in roles and (roles[p] == "test") is is_test] for is_test in (False, True))
    x = np.stack([means[p] for p in fit])
    centre, scale = x.mean(0), x.std(0) + 1e-9
    model = RidgeCV(PENALTIES).fit((x - centre) / scale, [cohort.label[p] for p in fit])
    scores = model.predict((np.stack([means[p] for p in test]) - centre) / scale)
    return float(roc_auc_score([cohort.label[p] for p in test], scores))


def informative_means(cohort: Cohort) -> dict[str, np.ndarray]:
    """The mean features of the informative patches of each slide, or of all where it has none."""
    means = {}
    for slide, bag in cohort.bags.items():
        informative, _ = cohort.truth.patches(slide)
        means[slide] = bag.features[informative if informative.any() else slice(None)].astype(np.float64).mean(0)
    return means


def student_rows(cohort: Cohort, folder: Path, roles: Mapping[str, str], growth: float) -> dict[str, float]:
    """One fold's student with another growth of its focus."""
    student = load_student(folder)
    for member in student.members:
        if isinstance(member, Student):
            member.focus_growth = growth
    scores, pooled, shares = {}, {}, []
    for slide, bag in cohort.bags.items():
        found = student.predict(bag, cohort.graphs[slide])
        if found.attention is None:
            raise SystemExit(f"{folder}: a student without attention")
        attention = found.attention.astype(np.float64) / found.attention.sum()
        informative, _ = cohort.truth.patches(slide)
        scores[slide], pooled[slide] = found.values[-1:], attention @ bag.features.astype(np.float64)
        shares.append(float(attention[informative].sum()))
    of_patient = by_patient(cohort, scores)
    test = [p for p in of_patient if roles.get(p) == "test"]
    auc = roc_auc_score([cohort.label[p] for p in test], [of_patient[p][0] for p in test])
    return {"auc": float(auc), "share": float(np.mean(shares)), "ridge": ridge_auc(cohort, pooled, roles)}


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="comparison", help="of the comparison's folder in --out")
    parser.add_argument("--growths", type=float, nargs="+", default=[0.0, 0.35, 0.7, 1.0, 1.4])
    parser.add_argument("--out", type=Path, default=Path("runs") / "simulated")
    options = parser.parse_args()
    cohort, run = read(options.out / "cohort"), options.out / options.name / "momkd"
    splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str})
    folds = {
        run / f"fold-{repeat}-{fold}" / "student": dict(zip(own["patient_id"], own["role"], strict=True))
        for (repeat, fold), own in splits.groupby(["repeat", "fold"])
    }
    visible = roc_auc_score(cohort.truth.label, cohort.truth.visible_score)
    means = informative_means(cohort)
    ridge = np.mean([ridge_auc(cohort, means, roles) for roles in folds.values()])
    print("| ceiling | AUC |\n|---|---|")
    print(f"| what slides show, without noise (all patients) | {visible:.3f} |")
    print(f"| ridge on the mean of the truly informative patches, mean of {len(folds)} test folds | {ridge:.3f} |\n")
    print("| g | attention on informative patches | ridge under that attention | the student itself |")
    print("|---|---|---|---|")
    for growth in options.growths:
        rows = pd.DataFrame([student_rows(cohort, folder, roles, growth) for folder, roles in folds.items()]).mean()
        print(f"| {growth:g} | {rows['share']:.2f} | {rows['ridge']:.3f} | {rows['auc']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
